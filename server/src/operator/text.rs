//! What the operator's answers have in common as text for people: times and aligned columns.

use std::io::{self, Write};

use time::OffsetDateTime;

/// A time to the second, in UTC; `never` for none.
pub(super) fn time(unix_ms: i64) -> String {
    if unix_ms == 0 {
        return "never".into();
    }
    let Ok(time) = OffsetDateTime::from_unix_timestamp(unix_ms / 1_000) else { return "?".into() };
    let (hour, minute, second) = time.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02}", time.date())
}

/// Prints rows with their columns aligned, one line each; the last column is as wide as it likes.
pub(super) fn print_aligned<const N: usize>(rows: &[[String; N]], out: &mut impl Write) -> io::Result<()> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    rows.iter().try_for_each(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_to_the_second_and_in_utc() {
        assert_eq!(time(1_700_000_000_999), "2023-11-14 22:13:20");
        assert_eq!(time(0), "never");
        assert_eq!(time(i64::MAX), "?");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_ends() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned);
        let mut out = Vec::new();
        print_aligned(&[row(["a", "b"]), row(["long", ""])], &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     b\nlong\n");
    }
}
