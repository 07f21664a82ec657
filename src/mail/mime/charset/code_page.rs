//! The code pages of DOS that mail still names and no library here decodes, and UTF-32.

/// The decoder of a label in lower case.
pub fn decoder(label: &str) -> Option<fn(&[u8]) -> String> {
    if label.starts_with("utf-32") || label.starts_with("utf32") {
        return Some(utf_32);
    }
    let page = ["ibm", "cp", "pc-", ""].iter().find_map(|prefix| label.strip_prefix(prefix))?;
    Some(match page.trim_start_matches(['-', '0']) {
        "437" => |bytes| single_byte(bytes, IBM_437),
        "852" => |bytes| single_byte(bytes, IBM_852),
        "855" => |bytes| single_byte(bytes, IBM_855),
        "857" => |bytes| single_byte(bytes, IBM_857),
        "858" => |bytes| single_byte(bytes, IBM_858),
        "862" => |bytes| single_byte(bytes, IBM_862),
        _ => return None,
    })
}

/// `high` holds the characters of the octets from 128 on.
fn single_byte(bytes: &[u8], high: &str) -> String {
    let high: Vec<char> = high.chars().collect();
    let character = |byte: &u8| match byte.checked_sub(128) {
        None => char::from(*byte),
        Some(place) => high.get(usize::from(place)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    // No character of these pages takes more.
    let mut text = String::with_capacity(3 * bytes.len());
    text.extend(bytes.iter().map(character));
    text
}

/// Its mark says the order, or else the first character, whose highest octet is always 0.
fn utf_32(bytes: &[u8]) -> String {
    let little = bytes.first().is_some_and(|first| *first != 0);
    let (quads, rest) = bytes.as_chunks::<4>();
    let character = |quad: &[u8; 4]| {
        let code = if little { u32::from_le_bytes(*quad) } else { u32::from_be_bytes(*quad) };
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    let mut text = String::with_capacity(bytes.len());
    text.extend(quads.iter().map(character));
    text.extend((!rest.is_empty()).then_some(char::REPLACEMENT_CHARACTER));
    text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)
}

const IBM_437: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";
const IBM_852: &str = "\
    ÇüéâäůćçłëŐőîŹÄĆÉĹĺôöĽľŚśÖÜŤťŁ×čáíóúĄąŽžĘę¬źČş«»░▒▓│┤ÁÂĚŞ╣║╗╝Żż┐\
    └┴┬├─┼Ăă╚╔╩╦╠═╬¤đĐĎËďŇÍÎě┘┌█▄ŢŮ▀ÓßÔŃńňŠšŔÚŕŰýÝţ´\u{ad}˝˛ˇ˘§÷¸°¨˙űŘř■\u{a0}";
const IBM_855: &str = "\
    ђЂѓЃёЁєЄѕЅіІїЇјЈљЉњЊћЋќЌўЎџЏюЮъЪаАбБцЦдДеЕфФгГ«»░▒▓│┤хХиИ╣║╗╝йЙ┐\
    └┴┬├─┼кК╚╔╩╦╠═╬¤лЛмМнНоОп┘┌█▄Пя▀ЯрРсСтТуУжЖвВьЬ№\u{ad}ыЫзЗшШэЭщЩчЧ§■\u{a0}";
const IBM_857: &str = "\
    ÇüéâäàåçêëèïîıÄÅÉæÆôöòûùİÖÜø£ØŞşáíóúñÑĞğ¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
    └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ºªÊËÈ�ÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµ�×ÚÛÙìÿ¯´\u{ad}±�¾¶§÷¸°¨·¹³²■\u{a0}";
const IBM_858: &str = "\
    ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜø£Ø×ƒáíóúñÑªº¿®¬½¼¡«»░▒▓│┤ÁÂÀ©╣║╗╝¢¥┐\
    └┴┬├─┼ãÃ╚╔╩╦╠═╬¤ðÐÊËÈ€ÍÎÏ┘┌█▄¦Ì▀ÓßÔÒõÕµþÞÚÛÙýÝ¯´\u{ad}±‗¾¶§÷¸°¨·¹³²■\u{a0}";
const IBM_862: &str = "\
    אבגדהוזחטיךכלםמןנסעףפץצקרשת¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(label: &str, bytes: &[u8]) -> Option<String> {
        decoder(label).map(|decode| decode(bytes))
    }

    #[test]
    fn every_page_has_a_character_for_every_octet() {
        for page in [IBM_437, IBM_852, IBM_855, IBM_857, IBM_858, IBM_862] {
            assert_eq!(page.chars().count(), 128, "{page}");
        }
        assert_eq!(decode("cp437", b"caf\x82").as_deref(), Some("caf\u{e9}"));
        assert_eq!(decode("ibm00858", b"\xd5").as_deref(), Some("\u{20ac}"));
        assert_eq!(decode("ibm852", b"\x88").as_deref(), Some("\u{142}"));
        assert_eq!(decode("cp1252", b"x"), None);
        assert_eq!(decode("", b"x"), None);
    }

    #[test]
    fn utf_32_is_read_in_both_orders() {
        assert_eq!(decode("utf-32", b"\xff\xfe\0\0A\0\0\0").as_deref(), Some("A"));
        assert_eq!(decode("utf-32be", b"\0\x01\xf6\0").as_deref(), Some("\u{1f600}"));
        assert_eq!(decode("utf-32le", b"A\0\0\0\0").as_deref(), Some("A\u{fffd}"));
        assert_eq!(decode("utf-32", b"\0\0\xd8\0").as_deref(), Some("\u{fffd}"));
    }
}
