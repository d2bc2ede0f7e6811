//! QR codes in a terminal, dark on light whatever its colours are.

use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

/// The lines of a code that holds a text; `None` for a text that is too long for any.
pub fn code(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let lines = code.render::<Dense1x2>().build();
    let coloured = lines.lines().map(|line| format!("\u{1b}[30;107m{line}\u{1b}[0m"));
    Some(coloured.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safety_number_fits_a_small_code_with_a_quiet_edge() {
        let code = code(&"0123456789".repeat(6)).unwrap();
        let lines: Vec<&str> = code.lines().collect();
        // 25 modules and 4 on each side, two in a line.
        assert_eq!(lines.len(), 33_usize.div_ceil(2));
        assert!(lines.iter().all(|line| line.starts_with("\u{1b}[30;107m") && line.ends_with("\u{1b}[0m")));
        let columns =
            |line: &str| line.trim_start_matches("\u{1b}[30;107m").trim_end_matches("\u{1b}[0m").chars().count();
        assert!(lines.iter().all(|line| columns(line) == 33));
        assert!(super::code(&"x".repeat(8_000)).is_none());
    }
}
