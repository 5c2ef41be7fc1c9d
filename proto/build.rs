//! Generates the messages and services from `proto/` with a compiler in Rust: no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files =
        ["admin", "pages", "peer", "segment", "state"].map(|name| format!("pg_quorum/v1/{name}.proto"));
    let descriptors = protox::compile(&files, ["proto"])?;
    // Payloads stay reference-counted slices of the receive buffer.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
