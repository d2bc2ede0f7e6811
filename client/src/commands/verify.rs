//! `socp verify`: the safety number that both sides compare, and the mark that they are alike.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde_json::json;
use socp::safety_number::{DIGITS, safety_number};

use super::{Context, print_line};
use crate::{cli::Verify, failure::Failure, qr, sending, verified::Standing};

/// The reason given when a number that was brought is not the one that is computed here.
const NUMBER_DIFFERS: &str = "SAFETY_NUMBER_DIFFERS";

pub(super) async fn run(context: &Context, command: Verify) -> Result<(), Failure> {
    let account = context.account(false)?;
    let session = account.session().await?;
    let found = sending::look_up(&session, &account, &command.user).await?;
    let (me, my_key) = (account.profile.address(), account.profile.key_fingerprint);
    let (user, key) = (&found.address, found.key.fingerprint());
    if *user == me {
        return Err(Failure::failed(format!("`{}` is you", found.label)).hint("compare with somebody else"));
    }
    let number = safety_number((&me, my_key), (user, key));
    let people = io::stdin().is_terminal() && io::stdout().is_terminal() && !context.global.json;
    if !context.global.json {
        show(&number, &account.profile.full_name(), &found.label);
    }
    let mark = match &command.number {
        Some(theirs) => {
            compare(&number, theirs, &found.label)?;
            Some(true)
        }
        None if command.confirm => Some(true),
        None if command.undo => Some(false),
        // A question that is answered with no takes nothing back.
        None if people => ask()?.then_some(true),
        None => None,
    };
    if let Some(verified) = mark {
        account.trust.mark(user, &found.key, verified)?;
    }
    let standing = account.trust.standing(user, &found.key)?;
    if context.global.json {
        let value = json!({
            "user": found.label,
            "server_id": user.home.to_string(),
            "fingerprint": key.to_string(),
            "own_fingerprint": my_key.to_string(),
            "safety_number": number,
            "verified": standing == Standing::Verified,
            "lapsed": standing == Standing::Lapsed,
        });
        print_line(&value.to_string());
        return Ok(());
    }
    eprintln!(
        "{}",
        match standing {
            Standing::Verified => format!("`{}` is marked as verified", found.label),
            Standing::Unverified => format!("`{}` is not marked as verified; `--confirm` does that", found.label),
            Standing::Lapsed => format!(
                "THE KEY OF `{}` IS NOT THE ONE THAT YOU VERIFIED BEFORE; if the numbers agree, `--confirm` marks the new one",
                found.label
            ),
        }
    );
    Ok(())
}

fn show(number: &str, me: &str, label: &str) {
    eprintln!("Safety number of {me} and {label}. Both compute the same, if each has the other's true key:\n");
    for line in grouped(number) {
        print_line(&line);
    }
    if io::stdout().is_terminal()
        && let Some(code) = qr::code(number)
    {
        print_line(&format!("\n{code}"));
    }
    eprintln!("\nCompare it over another way than this: side by side, or by telephone.");
}

/// Four groups of five digits in a line.
fn grouped(number: &str) -> Vec<String> {
    let groups: Vec<&str> = (0..number.len()).step_by(5).map(|place| &number[place..place + 5]).collect();
    groups.chunks(4).map(|line| line.join(" ")).collect()
}

/// Fails unless the other side's number, however it is grouped, is this one.
fn compare(number: &str, theirs: &str, label: &str) -> Result<(), Failure> {
    let digits: String = theirs.chars().filter(|letter| !letter.is_whitespace() && *letter != '-').collect();
    if digits.len() != DIGITS || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Failure::failed(format!("a safety number has {DIGITS} digits"))
            .hint("the other one shows it by `socp verify` with your name"));
    }
    if digits == number {
        return Ok(());
    }
    Err(Failure::refused(NUMBER_DIFFERS, format!("THE SAFETY NUMBER OF `{label}` IS ANOTHER ONE"))
        .hint("one of you sees a key that is not the other's: somebody may be reading along. Nothing was marked"))
}

fn ask() -> Result<bool, Failure> {
    let failed = |error| Failure::failed(format!("cannot ask at the terminal: {error}"));
    eprint!("Do they agree? [y/N] ");
    io::stderr().flush().map_err(failed)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(failed)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_was_brought_is_compared_digit_by_digit_however_it_is_grouped() {
        let number: String = (0..DIGITS).map(|place| char::from(b'0' + (place % 10) as u8)).collect();
        let lines = grouped(&number);
        assert_eq!(lines[0], "01234 56789 01234 56789");
        assert_eq!(lines.len(), 3);
        assert!(compare(&number, &lines.join("\n"), "bob").is_ok());
        let other = number.replacen('1', "2", 1);
        assert_eq!(compare(&number, &other, "bob").unwrap_err().reason, NUMBER_DIFFERS);
        for wrong in ["", &number[1..], &format!("{number}0"), &number.replacen('1', "x", 1)] {
            assert_eq!(compare(&number, wrong, "bob").unwrap_err().reason, "FAILED", "{wrong}");
        }
    }
}
