//! Turns an error into an exit code; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    match socp_server::main(socp_server::cli::Cli::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("\nhint: {hint}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
