//! The client: one device of a user.
//!
//! Keys are made and kept here; servers route what is sealed here and cannot read it. Where to start: [`chat`] is the
//! loop of the interactive client, [`live`] the connection under it, [`seal`], [`post`] and [`chunk`] what is encrypted and how,
//! [`history`] what is read back, [`trust`] whose keys are believed, [`moves`] where a user
//! is now who was elsewhere, [`introduction`] how a server proves who it is; [`mod@bench`] measures servers.

pub mod bench;
pub mod certificate;
pub mod channel_key;
pub mod chat;
pub mod chunk;
pub mod cli;
pub mod command_line;
pub mod commands;
pub mod connection;
pub mod content;
pub mod date;
pub mod directory;
pub mod download;
pub mod editor;
pub mod event;
pub mod export;
pub mod failure;
pub mod file;
pub mod file_name;
pub mod history;
pub mod inbox;
pub mod input;
pub mod introduction;
pub mod keystore;
pub mod known_keys;
pub mod live;
pub mod log_file;
pub mod moves;
pub mod outcome;
pub mod passphrase;
pub mod pins;
pub mod post;
pub mod printer;
pub mod private_file;
pub mod private_key;
pub mod profile;
pub mod public_key;
pub mod qr;
pub mod receipt;
pub mod render;
pub mod seal;
pub mod sending;
pub mod session;
pub mod sighting;
pub mod signals;
pub mod transfer;
pub mod transfers;
pub mod transport;
pub mod trust;
pub mod upload;
pub mod verified;
