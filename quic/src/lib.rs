//! gRPC over HTTP/3.
