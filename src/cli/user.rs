//! `mailkite user`: accounts of this server, changed on its host. The server may be running; it makes the change then.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::password;
use super::place::Place;
use super::text::{fit, size, width};
use crate::app::control::{Control, Reply, Request};
use crate::clock::Timestamp;
use crate::id::RowId;
use crate::store;
use crate::store::accounts::roster::{self, AccountEntry};

/// Accounts read at a time.
const PAGE: u32 = 500;

/// `mailkite user`
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List all accounts, oldest first
    List {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Add an account, with a verified address
    Add {
        /// The account's e-mail
        email: String,
        /// Let it administer this server
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        way: Way,
    },
    /// Give an account a new password; its sessions end
    ResetPassword {
        /// The account's e-mail
        email: String,
        #[command(flatten)]
        way: Way,
    },
    /// Print a link that signs in once, within 15 minutes
    SignInLink {
        /// The account's e-mail
        email: String,
    },
    /// Let an account administer this server, or no longer
    SetAdmin {
        /// The account's e-mail
        email: String,
        #[arg(action = clap::ArgAction::Set, value_name = "true|false")]
        admin: bool,
    },
    /// Remove an account with its domains and all its mail
    Remove {
        /// The account's e-mail
        email: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// The account's way in; the password is asked for unless one of these is given.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
struct Way {
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Give it no password, and print a link that signs in once, within 15 minutes
    #[arg(long)]
    sign_in_link: bool,
}

impl Way {
    fn password(self, email: &str) -> anyhow::Result<Option<String>> {
        match self {
            Self { sign_in_link: true, .. } => Ok(None),
            Self { password_stdin: true, .. } => password::read_stdin().map(Some),
            _ => password::ask_new(email).map(Some),
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        Command::List { json } => list(&options.place, *json),
        Command::Add { email, admin, way } => {
            let password = way.password(email)?;
            let request = Request::Add { email: email.clone(), admin: *admin, password };
            let rights = if *admin { "It administers this server." } else { "" };
            open(&options.place, request, way.sign_in_link, |email| format!("{email} was added. {rights}"))
        }
        Command::ResetPassword { email, way } => {
            let password = way.password(email)?;
            let request = Request::ResetPassword { email: email.clone(), password };
            let link = way.sign_in_link;
            open(&options.place, request, link, |email| match link {
                true => format!("{email} has no password now, and its sessions ended."),
                false => format!("{email} has the new password, and its sessions ended. API keys stay."),
            })
        }
        Command::SignInLink { email } => {
            let request = Request::SignInLink { email: email.clone() };
            open(&options.place, request, true, |email| format!("For {email}:"))
        }
        Command::SetAdmin { email, admin } => set_admin(&options.place, email, *admin),
        Command::Remove { email, yes } => remove(&options.place, email, *yes),
    }
}

/// Has the request carried out, then prints the sentence and the link.
fn open(place: &Place, request: Request, wants_link: bool, said: impl Fn(&str) -> String) -> anyhow::Result<()> {
    let config = place.config()?;
    let mut control = Control::open(&place.data_dir()?, &config)?;
    if wants_link && matches!(control, Control::Here(_)) && config.public_url.is_empty() {
        bail!("a link begins with public_url, so name the configuration with --config, or start the server");
    }
    let reply = control.ask(request);
    control.close();
    let Reply::Opened { email, link } = reply? else { bail!("the server answered something else") };
    print_line(said(&email).trim_end())?;
    match link {
        Some(link) => {
            print_line(&format!("\n  {link}\n"))?;
            print_line("It signs in once, within 15 minutes. The password is set under Settings.")
        }
        None => Ok(()),
    }
}

fn set_admin(place: &Place, email: &str, admin: bool) -> anyhow::Result<()> {
    let mut control = Control::open(&place.data_dir()?, &place.config()?)?;
    let reply = control.ask(Request::SetAdmin { email: email.to_owned(), admin });
    control.close();
    let Reply::Admin { email, changed } = reply? else { bail!("the server answered something else") };
    print_line(&match (admin, changed) {
        (true, true) => format!("{email} administers this server now."),
        (true, false) => format!("{email} administers this server already."),
        (false, true) => format!("{email} does not administer this server any more."),
        (false, false) => format!("{email} did not administer this server."),
    })
}

fn remove(place: &Place, email: &str, yes: bool) -> anyhow::Result<()> {
    let mut control = Control::open(&place.data_dir()?, &place.config()?)?;
    let removed = confirmed(&mut control, email, yes).and_then(|()| {
        let reply = control.ask(Request::Remove { email: email.to_owned() })?;
        let Reply::Holdings { email, domains, messages } = reply else { bail!("the server answered something else") };
        print_line(&format!("{email} was removed, with {}.", held(domains, messages)))
    });
    control.close();
    removed
}

fn confirmed(control: &mut Control, email: &str, yes: bool) -> anyhow::Result<()> {
    let reply = control.ask(Request::Holdings { email: email.to_owned() })?;
    let Reply::Holdings { email, domains, messages } = reply else { bail!("the server answered something else") };
    if yes {
        return Ok(());
    }
    let mut out = std::io::stdout();
    writeln!(out, "This removes {email} for good, with its keys, routes, {}.", held(domains, messages))?;
    write!(out, "Type the address to go on: ")?;
    out.flush()?;
    let typed = password::read_line(&mut std::io::stdin().lock())?;
    if typed.trim().eq_ignore_ascii_case(&email) { Ok(()) } else { bail!("nothing was removed") }
}

fn held(domains: u64, messages: u64) -> String {
    let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    format!("{} and {}", count(domains, "domain"), count(messages, "message"))
}

fn list(place: &Place, as_json: bool) -> anyhow::Result<()> {
    let data_dir = place.data_dir()?;
    let mut after = RowId::new(0);
    let mut out = std::io::stdout().lock();
    if !as_json {
        writeln!(out, "{}", row(&["id", "e-mail", "admin", "verified", "storage", "last sign-in", "domains"]))?;
    }
    loop {
        let page = store::read_offline(&data_dir, |connection| roster::list(connection, after, PAGE));
        let page = page.with_context(|| format!("reading the accounts in {}", data_dir.display()))?;
        let page = page.with_context(|| format!("there is no database in {} yet", data_dir.display()))?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.account.id;
        for entry in &page {
            writeln!(out, "{}", if as_json { entry_json(entry) } else { entry_row(entry) })?;
        }
    }
}

fn entry_row(entry: &AccountEntry) -> String {
    let yes = |so: bool| if so { "yes" } else { "no" };
    let account = &entry.account;
    row(&[
        account.public_id.as_str(),
        &account.email,
        yes(account.is_admin),
        yes(account.email_verified),
        &size(entry.stored_bytes),
        &entry.signed_in_at.map_or_else(|| "never".to_owned(), minute),
        &entry.domains.join(", "),
    ])
}

/// The e-mail is never cut, since other commands take it.
fn row(cells: &[&str; 7]) -> String {
    let [id, email, admin, verified, storage, signed_in, domains] = cells;
    let email = fit(email, width(email).max(28));
    let (id, admin, verified) = (fit(id, 20), fit(admin, 5), fit(verified, 8));
    let line = format!("{id}  {email}  {admin}  {verified}  {storage:>9}  {}  {domains}", fit(signed_in, 16));
    line.trim_end().to_owned()
}

fn minute(at: Timestamp) -> String {
    at.zoned().strftime("%Y-%m-%d %H:%M").to_string()
}

fn entry_json(entry: &AccountEntry) -> String {
    let account = &entry.account;
    json!({
        "id": account.public_id.to_string(),
        "email": account.email,
        "isAdmin": account.is_admin,
        "emailVerified": account.email_verified,
        "domains": entry.domains,
        "storedBytes": entry.stored_bytes,
        "lastSignInAt": entry.signed_in_at.map(Timestamp::as_millis),
        "createdAt": entry.created_at.as_millis(),
    })
    .to_string()
}

fn print_line(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
