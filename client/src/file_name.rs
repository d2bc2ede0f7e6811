//! Names under which received files are saved: chosen by others, so nothing in them may lead anywhere, steer a terminal, pass for an
//! option or hide.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{failure::Failure, render};

/// Bytes of a name that is saved: what most file systems take, and room for a number.
const NAME_BYTES_MAX: usize = 200;

/// Other names tried where one is taken.
const NAMES_MAX: u32 = 10_000;

/// Names that mean devices on some systems, whatever follows the dot.
const DEVICES: [&str; 4] = ["CON", "PRN", "AUX", "NUL"];

/// Makes a plain file name of what somebody else calls a file.
pub fn safe(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let is_odd = |c: char| matches!(c, ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let kept: String = render::clean(last).chars().map(|c| if is_odd(c) { '_' } else { c }).collect();
    let kept = kept.trim().trim_end_matches(['.', ' ']);
    let stem = kept.split('.').next().unwrap_or_default().trim();
    let numbered = |device: &str| {
        stem.len() == 4
            && stem.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(device))
            && stem.ends_with(|c: char| c.is_ascii_digit())
    };
    let is_device =
        DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device)) || numbered("COM") || numbered("LPT");
    let hides = kept.starts_with(['.', '-', '~']);
    let plain = if is_device || hides { format!("_{kept}") } else { kept.to_owned() };
    let plain = shortened(&plain);
    if plain.is_empty() { "file".to_owned() } else { plain }
}

/// Cut to its limit, with its extension if that is a usual one.
fn shortened(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    let mut end = NAME_BYTES_MAX - extension.len();
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &stem[..end])
}

/// A name before its extension, and that with its dot, if it is short and something is before it.
fn split(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= 16 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Gives a whole file its final name in a folder, which nothing had before: `name`, else `name (1)` and so on.
pub fn settle(whole: &Path, folder: &Path, name: &str) -> Result<PathBuf, Failure> {
    let (stem, extension) = split(name);
    for number in 0..NAMES_MAX {
        let name = if number == 0 { name.to_owned() } else { format!("{stem} ({number}){extension}") };
        let path = folder.join(name);
        // A link fails where there is something, also a broken link; a rename would take its place.
        match fs::hard_link(whole, &path) {
            Ok(()) => {
                let synced = fs::remove_file(whole).and_then(|()| fs::File::open(folder)?.sync_all());
                synced.map_err(|error| Failure::file("save", &path, &error))?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::file("save", &path, &error)),
        }
    }
    Err(Failure::failed(format!("every name like `{}` is taken in `{}`", render::clean(name), folder.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_elsewhere_leads_nowhere_and_hides_nothing() {
        for (name, saved) in [
            ("report.pdf", "report.pdf"),
            ("Grüße 👋.txt", "Grüße 👋.txt"),
            ("../../etc/passwd", "passwd"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\boot.ini", "boot.ini"),
            ("C:\\x\\y.exe", "y.exe"),
            ("C:y", "C_y"),
            ("..", "file"),
            (".", "file"),
            ("", "file"),
            ("a/", "file"),
            ("   ", "file"),
            (".bashrc", "_.bashrc"),
            ("-rf", "_-rf"),
            ("~root", "_~root"),
            ("a\u{0}b\u{1b}[2J\nc", "ab[2J c"),
            ("exe.\u{202e}fdp", "exe.fdp"),
            ("trailing. . ", "trailing"),
            ("NUL", "_NUL"),
            ("con.txt", "_con.txt"),
            ("COM1", "_COM1"),
            ("console", "console"),
        ] {
            assert_eq!(safe(name), saved, "{name:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_between_letters_and_keeps_its_extension() {
        let long = safe(&format!("{}.pdf", "ü".repeat(300)));
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with("ü.pdf"), "{long}");
        assert_eq!(safe(&"n".repeat(NAME_BYTES_MAX)).len(), NAME_BYTES_MAX);
        assert_eq!(safe(&"n".repeat(NAME_BYTES_MAX + 1)).len(), NAME_BYTES_MAX);
        let (stem, extension) = (".".to_owned() + &"x".repeat(300), String::new());
        assert!(safe(&(stem + &extension)).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn nothing_is_overwritten_not_even_a_link_that_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.txt"), "old").unwrap();
        std::os::unix::fs::symlink("/nowhere", at("a (1).txt")).unwrap();
        fs::write(at(".part"), "new").unwrap();
        let saved = settle(&at(".part"), folder.path(), "a.txt").unwrap();
        assert_eq!(saved, at("a (2).txt"));
        assert_eq!(fs::read_to_string(&saved).unwrap(), "new");
        assert_eq!(fs::read_to_string(at("a.txt")).unwrap(), "old");
        assert!(!at(".part").exists());
    }
}
