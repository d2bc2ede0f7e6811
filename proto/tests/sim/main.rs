//! A seeded network of real nodes, with faults, users who come and go, and checkers that do not trust the nodes.
//!
//! A seed replays a run exactly. Every fault kind is a field of [`faults::Faults`]; every promise has a checker in a
//! file of its own under `checks`.

mod admission;
mod between;
mod byzantine;
mod calm;
mod channel;
mod channel_disk;
mod checks;
mod contradiction;
mod directory;
mod disk;
mod faults;
mod floods;
mod greeting;
mod hold;
mod inbox;
mod introducer;
mod issuer;
mod keys;
mod lies;
mod links;
mod mail;
mod message;
mod moves;
mod network;
mod onward;
mod operator;
mod outbox;
mod page;
mod restarts;
mod rogue;
mod rotation;
mod seeds;
mod server;
mod session;
mod signed_again;
mod tally;
mod trust;
mod users;
mod watch;
mod wires;
mod world;
mod writes;
