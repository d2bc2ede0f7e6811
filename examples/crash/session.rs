//! A session of a user at a server that may be killed at any moment.

use std::{sync::Arc, time::Duration};

use socp::v1::CreateChallengeRequest;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    EVERYBODY, World,
    harness::{
        caller::{self, Caller},
        wire,
    },
};

/// A call that takes longer has no answer.
pub const CALL_MAX: Duration = Duration::from_secs(10);

/// Between two tries to reach a server.
pub const RETRY: Duration = Duration::from_millis(30);

/// Connects and logs in.
async fn try_open(world: &World, user: usize) -> Option<Caller> {
    let user = &world.users[user];
    let place = &world.places[user.home];
    let name = user.address.user.as_str();
    let channel = wire::tcp(place.address, &place.ca).await.ok()?;
    let mut accounts = caller::accounts(&channel);
    let challenge = accounts.create_challenge(CreateChallengeRequest { user: name.into() }).await.ok()?;
    let nonce = challenge.into_inner().nonce[..].try_into().ok()?;
    let token = accounts.log_in(caller::login(place.id, name, &nonce, EVERYBODY)).await.ok()?.into_inner().token;
    Some(Caller { address: user.address.clone(), key: Arc::clone(&world.key), token, channel })
}

/// Connects and logs in, as soon as the server is there.
pub async fn open(world: &World, user: usize) -> Caller {
    loop {
        if let Ok(Some(caller)) = timeout(CALL_MAX, try_open(world, user)).await {
            return caller;
        }
        sleep(RETRY).await;
    }
}

/// The same until a moment; gives nothing after it.
pub async fn open_until(world: &World, user: usize, until: Instant) -> Option<Caller> {
    tokio::time::timeout_at(until, open(world, user)).await.ok()
}
