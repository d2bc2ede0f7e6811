//! Turns an error into an exit code; everything else is in the library.

use std::process::ExitCode;

/// Gives memory back to the system within seconds of a storm of clients, on a thread of its own. glibc's keeps it: among what
/// is freed there are always a few objects that stay.
#[cfg(all(feature = "jemalloc", target_os = "linux"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
