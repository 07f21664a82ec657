//! The labels of charsets: those of WHATWG and IANA, and others that senders use, in the spelling of [`key`].

use std::collections::HashMap;
use std::sync::LazyLock;

/// Each charset with the keys of all its labels.
const CHARSETS: &[(&str, &str)] = &[
    (
        "big5",
        "950 big5 cp950 hkscs ms950 xbig5 big5hk big5tw cnbig5 csbig5 xxbig5 big5eten big5hkscs windows950 \
         big5hkscs2001 big5hkscs2004 xmactradchinese",
    ),
    (
        "euc-jp",
        "ujis eucjp xeucjp cp20932 cp51932 eucjpms jisx213 eucjpwin eucjis2004 eucjisx213 cseucpkdfmtjapanese \
         extendedunixcodepackedformatforjapanese",
    ),
    (
        "euc-kr",
        "949 uhc cp949 euckr ms949 korean cp51949 cseuckr ksc5601 ksx1001 wansung isoir149 windows949 xmackorean \
         ksc56011987 ksc56011989 csksc56011987",
    ),
    ("gb18030", "cp54936 gb18030 gb180302000 gb180302005 gb180302022 windows54936"),
    (
        "gbk",
        "cp51936 gb 936 gbk gbk1 xgbk cp936 euccn ms936 gb2312 xeuccn chinese cp20936 isoir58 csgb2312 gb231280 \
         gb23121980 windows936 eucgb2312cn csiso58gb231280 xmacsimpchinese",
    ),
    ("hp-roman8", "r8 cp1051 roman8 ibm1051 hproman8 cshproman8"),
    ("hz-gb-2312", "cp52936 hz hzgb hzgb2312"),
    ("ibm437", "437 cp437 pc437 dos437 ibm437 oem437 xcp437 cspc437 csibm437 ibm437p100 cspc8codepage437"),
    ("ibm737", "737 cp737 pc737 dos737 ibm737 oem737 xcp737 cspc737 csibm737 ibm737p100"),
    ("ibm775", "775 cp775 pc775 dos775 ibm775 oem775 xcp775 cspc775 csibm775 ibm775p100 cspc775baltic"),
    ("ibm850", "850 cp850 pc850 dos850 ibm850 oem850 xcp850 cspc850 csibm850 ibm850p100 cspc850multilingual"),
    ("ibm852", "852 cp852 pc852 dos852 ibm852 oem852 xcp852 cspc852 csibm852 cspcp852 ibm852p100"),
    ("ibm855", "855 cp855 pc855 dos855 ibm855 oem855 xcp855 cspc855 csibm855 ibm855p100"),
    ("ibm857", "857 cp857 pc857 dos857 ibm857 oem857 xcp857 cspc857 csibm857 ibm857p100"),
    (
        "ibm858",
        "858 cp858 pc858 dos858 ibm858 oem858 xcp858 cspc858 ccsid858 csibm858 ibm858p100 pcmultilingual850euro",
    ),
    ("ibm860", "860 cp860 pc860 dos860 ibm860 oem860 xcp860 cspc860 csibm860 ibm860p100"),
    ("ibm861", "861 cpis cp861 pc861 dos861 ibm861 oem861 xcp861 cspc861 csibm861 ibm861p100"),
    ("ibm862", "862 cp862 pc862 dos862 ibm862 oem862 xcp862 cspc862 csibm862 ibm862p100 cspc862latinhebrew"),
    ("ibm863", "863 cp863 pc863 dos863 ibm863 oem863 xcp863 cspc863 csibm863 ibm863p100"),
    ("ibm864", "864 cp864 pc864 dos864 ibm864 oem864 xcp864 cspc864 csibm864 ibm864p100"),
    ("ibm865", "865 cp865 pc865 dos865 ibm865 oem865 xcp865 cspc865 csibm865 ibm865p100"),
    ("ibm866", "866 cp866 dos866 ibm866 csibm866"),
    ("ibm869", "869 cpgr cp869 pc869 dos869 ibm869 oem869 xcp869 cspc869 csibm869 ibm869p100"),
    (
        "iso-2022-jp",
        "jis jis7 cp50220 cp50221 cp50222 iso2022jp xiso2022jp csiso2022jp windows50220 windows50221 \
         csjisencoding",
    ),
    ("iso-2022-kr", "cp50225 iso2022kr csiso2022kr"),
    ("iso-8859-10", "l6 885910 latin6 isoir157 iso885910 csisolatin6 iso8859101992"),
    ("iso-8859-13", "cp28603 l7 885913 latin7 iso885913"),
    ("iso-8859-14", "cp28604 l8 885914 latin8 isoir199 iso885914 isoceltic iso8859141998"),
    ("iso-8859-15", "l9 885915 latin0 latin9 cp28605 iso885915 csiso885915 csisolatin9 iso885915euro"),
    ("iso-8859-16", "l10 885916 latin10 isoir226 iso885916 iso8859162001"),
    ("iso-8859-2", "l2 88592 latin2 cp28592 iso88592 isoir101 isolatin2 csisolatin2 iso885921987"),
    ("iso-8859-3", "cp28593 l3 88593 latin3 iso88593 isoir109 csisolatin3 iso885931988"),
    ("iso-8859-4", "cp28594 l4 88594 latin4 iso88594 isoir110 csisolatin4 iso885941988"),
    ("iso-8859-5", "88595 cp28595 cyrillic iso88595 isoir144 iso885951988 csisolatincyrillic"),
    (
        "iso-8859-6",
        "cp28596 88596 arabic asmo708 ecma114 iso88596 isoir127 iso88596e iso88596i csiso88596e csiso88596i iso885961987 \
         csisolatinarabic",
    ),
    (
        "iso-8859-7",
        "88597 greek greek8 cp28597 ecma118 elot928 iso88597 isoir126 suneugreek iso885971987 csisolatingreek",
    ),
    (
        "iso-8859-8",
        "88598 hebrew visual cp28598 iso88598 isoir138 iso88598e csiso88598e iso885981988 csisolatinhebrew",
    ),
    ("iso-8859-8-i", "cp38598 logical iso88598i csiso88598i"),
    ("koi8-r", "koi koi8 koi8r cp20866 cskoi8r koi8rfc1489"),
    ("koi8-u", "koi8u koi8ru cp21866"),
    ("macintosh", "mac cp10000 macroman macintosh xmacroman appleroman csmacintosh"),
    (
        "shift_jis",
        "932 sjis cp932 cp943 ms932 xsjis ibm943 mskanji shiftjis sjis2004 sjisx213 xmscp932 csshiftjis \
         windows31j windows932 cswindows31j shiftjis2004 shiftjisx213 xmacjapanese",
    ),
    (
        "us-ascii",
        "us 646 7bit 8bit none ascii cp367 binary ibm367 iso646 isoir6 cp20127 csascii default iso8859 unknown \
         usascii iso646us xunknown ansix341968 ansix341986 unknown8bit iso646irv1991",
    ),
    ("utf-16", "u16 ucs2 utf16 csutf16 unicode csunicode iso10646ucs2"),
    ("utf-16be", "cp1201 utf16be csutf16be unicodefffe unicodebigunmarked"),
    ("utf-16le", "cp1200 utf16le xutf16le csutf16le unicodefeff unicodelittleunmarked"),
    ("utf-32", "cp12000 cp12001 ucs4 utf32 csucs4 csutf32 utf32be utf32le iso10646ucs4"),
    ("utf-7", "utf7 csutf7 cp65000 windows65000 unicode11utf7 unicode20utf7 xunicode20utf7 csunicode11utf7"),
    (
        "utf-8",
        "u8 utf utf8 xutf8 csutf8 cp65001 utf8mac utf8mb4 utf8sig al32utf8 utf8ucs2 utf8ucs4 utf8strict \
         iso10646utf8 windows65001 unicode11utf8 unicode20utf8 xunicode20utf8",
    ),
    (
        "windows-1250",
        "1250 msee cp1250 ms1250 ibm1250 win1250 xcp1250 ansi1250 windows1250 cswindows31latin2 \
         iso88592windowslatin2",
    ),
    ("windows-1251", "1251 cp1251 ms1251 mscyrl ibm1251 win1251 xcp1251 ansi1251 windows1251"),
    (
        "windows-1252",
        "l1 1252 8859 ansi 88591 cp819 latin xansi cp1252 ibm819 latin1 ms1252 msansi cp28591 ibm1252 western \
         win1252 xcp1252 ansi1252 iso88591 isoir100 iso88591e isolatin1 winlatin1 iso88591gr csisolatin1 \
         windows1252 iso885911987 windowslatin1 iso88591latin1 cswindows30latin1 cswindows31latin1 \
         iso88591windows30latin1 iso88591windows31latin1",
    ),
    ("windows-1253", "1253 cp1253 ms1253 ibm1253 msgreek win1253 xcp1253 ansi1253 windows1253"),
    (
        "windows-1254",
        "l5 1254 88599 cp1254 latin5 ms1254 msturk cp28599 ibm1254 win1254 xcp1254 ansi1254 iso88599 isoir148 \
         csisolatin5 windows1254 iso885991989 cswindows31latin5 iso88599windowslatin5",
    ),
    ("windows-1255", "1255 cp1255 ms1255 mshebr ibm1255 win1255 xcp1255 ansi1255 windows1255"),
    ("windows-1256", "1256 cp1256 ms1256 msarab ibm1256 win1256 xcp1256 ansi1256 windows1256"),
    ("windows-1257", "1257 cp1257 ms1257 ibm1257 win1257 xcp1257 ansi1257 winbaltrim windows1257"),
    ("windows-1258", "1258 cp1258 ms1258 ibm1258 win1258 xcp1258 ansi1258 windows1258"),
    (
        "windows-874",
        "thai cp874 ms874 885911 dos874 ibm874 tis620 tis6200 cstis620 isoir166 iso885911 tis6202533 windows874 \
         tis62025290 tis62025291 xwindows874 iso8859112001",
    ),
    ("x-mac-ce", "macce xmacce cp10029 maclatin2 maccenteuro macintoshce maccentraleurope xmaccentraleurroman"),
    ("x-mac-croatian", "cp10082 maccroatian xmaccroatian"),
    ("x-mac-cyrillic", "cp10007 maccyrillic macukrainian xmaccyrillic xmacukrainian"),
    ("x-mac-greek", "cp10006 macgreek xmacgreek"),
    ("x-mac-icelandic", "cp10079 maciceland xmacicelandic"),
    ("x-mac-romanian", "cp10010 macromanian xmacromanian"),
    ("x-mac-turkish", "cp10081 macturkish xmacturkish"),
];

/// Reduces a label to its distinctive characters (Unicode TR 22 §1.4): letters and digits, without leading zeros of
/// numbers.
pub(crate) fn key(label: &[u8]) -> String {
    let mut key = String::new();
    let mut after_digit = false;
    let mut octets = label.iter().take(80).peekable();
    while let Some(octet) = octets.next() {
        let leads = *octet == b'0' && !after_digit && octets.peek().is_some_and(|next| next.is_ascii_digit());
        if !leads {
            after_digit = octet.is_ascii_digit();
            key.extend(octet.is_ascii_alphanumeric().then(|| char::from(octet.to_ascii_lowercase())));
        }
    }
    key
}

/// Returns the name of the charset that a key represents.
pub(crate) fn charset_name(key: &str) -> Option<&'static str> {
    static BY_KEY: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| {
        CHARSETS.iter().flat_map(|(name, keys)| keys.split(' ').map(move |key| (key, *name))).collect()
    });
    // Private labels are often registered ones with the prefix `x-`.
    BY_KEY.get(key).or_else(|| BY_KEY.get(key.strip_prefix('x')?)).copied()
}

#[cfg(test)]
mod tests {
    use super::{CHARSETS, charset_name, key};
    use std::collections::HashSet;

    #[test]
    fn each_label_stands_once_and_as_its_key() {
        let labels: Vec<&str> = CHARSETS.iter().flat_map(|(_, keys)| keys.split(' ')).collect();
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len());
        for label in labels {
            assert_eq!(key(label.as_bytes()), label);
        }
        for (name, _) in CHARSETS {
            assert_eq!(charset_name(&key(name.as_bytes())), Some(*name));
        }
    }
}
