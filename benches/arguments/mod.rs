//! The command line of a bench: numbers by name, each within its bounds.

use std::{env, ops::RangeInclusive, process::exit};

/// Reads the numbers of these names, or what each is without being said. Asked for help, or told what is not understood, it says so
/// and ends the process.
pub fn read<const N: usize>(help: &str, known: [(&str, RangeInclusive<usize>, usize); N]) -> [usize; N] {
    let mut numbers = known.each_ref().map(|(_, _, unsaid)| *unsaid);
    // Cargo says this to every bench.
    let mut said = env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = said.next() {
        if ["--help", "-h"].contains(&&*argument) {
            println!("{help}");
            exit(0);
        }
        let number = said.next().and_then(|value| value.parse().ok());
        let place = known.iter().position(|(name, range, _)| {
            *name == argument && number.as_ref().is_some_and(|number| range.contains(number))
        });
        match place.zip(number) {
            Some((place, number)) => numbers[place] = number,
            None => {
                eprintln!("error: `{argument}` is not understood\n\n{help}");
                exit(2);
            }
        }
    }
    numbers
}
