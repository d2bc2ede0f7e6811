//! Compiles the contracts under `proto/socp` into `OUT_DIR`, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const CONTRACTS: &[&str] = &[
    "proto/socp/v1/rejection.proto",
    "proto/socp/v1/statement.proto",
    "proto/socp/v1/account.proto",
    "proto/socp/v1/directory.proto",
    "proto/socp/v1/message.proto",
    "proto/socp/v1/file.proto",
    "proto/socp/federation/v1/federation.proto",
    "proto/socp/operator/v1/operator.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for contract in CONTRACTS {
        println!("cargo:rerun-if-changed={contract}");
    }
    println!("cargo:rerun-if-changed=build.rs");

    let files = protox::compile(CONTRACTS, ["proto"])?;

    // Reflection shows clients their own contract only.
    let mut client = files.clone();
    client.file.retain(|file| file.package() == "socp.v1");
    fs::write(out.join("client.fds"), client.encode_to_vec())?;

    let stubs = env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(stubs)
        .build_server(stubs)
        .build_transport(false)
        .btree_map(".")
        .bytes(".")
        .codec_path("crate::codec::SmallBuffers")
        .compile_fds(files)?;
    Ok(())
}
