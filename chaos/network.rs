//! The namespaces that `chaos/run` made: one for each server, joined by a pair of virtual interfaces to that of the switch.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

/// Servers, and namespaces for them.
pub const SERVERS: usize = 5;

/// Where every server listens for clients, TCP and UDP, in a namespace of its own.
const CLIENT_PORT: u16 = 7443;

/// Where every server listens for others, UDP.
const FEDERATION_PORT: u16 = 7444;

/// The letter by which a server, its namespace and its port of the switch are called.
pub fn letter(server: usize) -> char {
    ('a'..='z').nth(server).expect("there are fewer servers than letters")
}

fn prefix() -> String {
    env::var("SOCP_CHAOS_NAMESPACES").expect("`chaos/run` makes the namespaces and runs this")
}

/// The namespace of a server.
pub fn namespace(server: usize) -> String {
    format!("{}{}", prefix(), letter(server))
}

/// The file that stands for the namespace of the switch.
pub fn switch() -> String {
    format!("/run/netns/{}switch", prefix())
}

fn ip(server: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(server + 1).expect("there are few servers"))
}

/// Where the clients of a server reach it, in its namespace.
pub fn client(server: usize) -> SocketAddr {
    (ip(server), CLIENT_PORT).into()
}

/// Where other servers reach a server.
pub fn federation(server: usize) -> SocketAddr {
    (ip(server), FEDERATION_PORT).into()
}

/// The same command, run in the namespace of a server. It becomes that program, so that signals reach it.
pub fn inside(server: usize, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &namespace(server)]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(key, value),
            None => inside.env_remove(key),
        };
    }
    inside
}
