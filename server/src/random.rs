//! Randomness for the shell and for the core, from the one generator that the keys are made with.

/// Fresh random bytes.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's generator does not fail once it is seeded");
    bytes
}

/// A fresh invite: 80 bits in groups that can be read over the telephone, without `i`, `l`, `o` and `u`.
pub fn invite() -> String {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let letters = bytes::<16>().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    letters.chunks(4).map(String::from_iter).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invite_has_four_groups_and_is_never_the_same() {
        let invite = invite();
        assert_eq!(invite.len(), 19);
        assert_eq!(invite.split('-').filter(|group| group.len() == 4).count(), 4);
        assert_ne!(invite, super::invite());
    }
}
