//! The live half of the server over real federation sockets: two servers see and reach each other's users, and
//! whoever has no business with them is refused.

mod links;
mod mesh;
mod requests;
mod support;
