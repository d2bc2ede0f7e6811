//! The binary `socp`: turns what went wrong into text and an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use socp_client::{cli::Cli, commands, failure::Failure};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("SOCP_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        // A thread that waits for input or a passphrase must not hold the end back.
        Ok(runtime) => {
            let outcome = runtime.block_on(commands::run(cli));
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::failed(format!("the runtime cannot start: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
