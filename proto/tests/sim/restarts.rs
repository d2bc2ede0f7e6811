//! Servers that start and stop: with their disk, an old copy of it or none, killed or with a goodbye.

use socp::{
    id::{StartId, sha256},
    input::Input,
    node::{Node, Pin, Settings, Start, next_epoch},
};

use crate::{
    checks::watches::Watch,
    disk::Disk,
    faults::Faults,
    tally::Kind,
    wires::End,
    world::{Event, World},
};

impl World {
    /// Starts a server anew, with its disk and other settings.
    pub fn restart_with(&mut self, index: usize, change: impl FnOnce(&mut Settings)) {
        self.servers[index].node = None;
        self.start_with(index, change);
    }

    /// Starts a server anew from an old copy of its disk, by a clock that goes as wrong.
    pub fn restart_from_old_copy(&mut self, index: usize) {
        self.crash(index, 0);
        self.servers[index].disk.epoch = 7;
        self.clock_is_lost = true;
        self.start(index);
        self.clock_is_lost = false;
    }

    /// Starts a server anew with its key and nothing else: its users have to register once more.
    pub fn restart_with_empty_disk(&mut self, index: usize) {
        self.crash(index, 0);
        self.servers[index].disk = Disk::default();
        self.servers[index].disks_lost += 1;
        self.moves.forget(self.servers[index].id);
        self.users.forget_accounts(index);
        self.start(index);
    }

    /// Copies a server's disk; or, if there is a copy, starts the server anew from it.
    pub fn back_up_or_roll_back(&mut self, index: usize) {
        let Some(backup) = self.servers[index].backup.take() else {
            self.servers[index].backup = Some(self.servers[index].disk.clone());
            return;
        };
        self.tally.count(Kind::RolledBackDisk);
        self.crash(index, 0);
        self.moves.forget(self.servers[index].id);
        self.users.keep_accounts(index, |name| backup.accounts.get(name).map(|account| account.moved.is_some()));
        self.servers[index].disk = backup;
        self.servers[index].disks_lost += 1;
        self.start(index);
    }

    pub fn start(&mut self, index: usize) {
        if self.servers[index].node.is_none() {
            self.start_with(index, |_| {});
        }
    }

    pub fn start_with(&mut self, index: usize, change: impl FnOnce(&mut Settings)) {
        let peers: Vec<Pin> = self
            .servers
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index && self.pins(index, *other))
            .map(|(other, server)| Pin {
                id: server.id,
                name: server.name.clone(),
                is_dialled: self.joins(index, other),
            })
            .collect();
        let count = self.servers.len();
        let unix_ms = if self.clock_is_lost { 0 } else { self.true_unix_ms() };
        let server = &mut self.servers[index];
        server.disk.mail.lose(usize::MAX);
        server.disk.epoch = next_epoch(server.disk.epoch, unix_ms);
        server.epoch = server.disk.epoch;
        server.starts += 1;
        // From an old copy of the disk, a number may come again.
        server.ended_ms.remove(&server.epoch);
        server.paused_until_ms = 0;
        server.tick_ms = None;
        server.watch = Watch::default();
        self.moves.begin(server.id);
        let start_id = sha256(&[
            b"start",
            &self.seed.to_be_bytes(),
            &server.epoch.to_be_bytes(),
            &[index as u8],
            &server.starts.to_be_bytes(),
        ]);
        let start = Start {
            identity: Box::new(server.identity.clone()),
            epoch: server.epoch,
            start_id: StartId::from_bytes(&start_id[..16]).expect("16 bytes"),
            seed: self.seed.wrapping_add(server.epoch).wrapping_add(index as u64),
            accounts: server.disk.accounts.values().cloned().collect(),
            invites: server.disk.invites.iter().copied().collect(),
            trust: server.disk.trust(),
            mail: server.disk.mail.mail(),
        };
        if index == self.audience_at() {
            self.audience.begin(start.start_id, &mut self.tally);
        }
        let server = &mut self.servers[index];
        // Where everybody pins everybody it changes nothing, and costs much in large networks: some do it.
        let introduces = self.pinned.is_some() || (self.seed % 4 == 3 && count <= 8);
        let Faults { goodbye_hold_ms, kept_batches_max, .. } = self.faults;
        let mut settings =
            Settings { peers, introduces, goodbye_hold_ms, kept_batches_max, ..Settings::new(server.name.clone()) };
        change(&mut settings);
        server.node = Some(Node::new(settings, start));
        self.input(index, Input::Tick);
    }

    /// Ends a server at once, as `kill -9` does. Peers may be told, or have to find out.
    pub fn crash(&mut self, index: usize, down_ms: u64) {
        let server = &mut self.servers[index];
        let epoch = server.present_epoch();
        server.node = None;
        let kept = self.rng.usize(0..=server.disk.mail.under_way());
        if server.disk.mail.lose(kept) > 0 {
            self.tally.count(Kind::WriteLost);
        }
        server.ended_ms.insert(epoch, self.now_ms);
        server.streams.clear();
        self.users.forget_sessions(index);
        let told = self.rng.bool();
        let ends: Vec<End> = self.wires.iter().filter_map(|(id, wire)| wire.end_at(id, index)).collect();
        for end in ends {
            if let Some(wire) = self.wires.get_mut(end.wire) {
                wire.is_up[end.side] = false;
                wire.swallows = [true; 2];
            }
            if told {
                let at_ms = self.now_ms + self.rng.u64(0..300);
                self.schedule(at_ms, Event::LinkDown(end.other()));
            }
        }
        self.schedule(self.now_ms + down_ms, Event::Start(index));
    }

    /// The same, and nothing is on disk of which nobody was told.
    pub fn crash_losing_writes(&mut self, index: usize, down_ms: u64) {
        self.servers[index].disk.mail.lose(0);
        self.crash(index, down_ms);
    }

    /// Stops a server as SIGTERM does: it says goodbye, and what it said arrives.
    pub fn stop(&mut self, index: usize, down_ms: u64) {
        if self.servers[index].node.is_none() {
            return;
        }
        self.input(index, Input::Drain);
        let server = &mut self.servers[index];
        let epoch = server.present_epoch();
        server.node = None;
        server.ended_ms.insert(epoch, self.now_ms);
        server.said_goodbye.insert(epoch);
        server.streams.clear();
        self.users.forget_sessions(index);
        for wire in self.wires.iter_mut() {
            if let Some(side) = wire.servers.iter().position(|server| *server == index) {
                wire.is_up[side] = false;
            }
        }
        self.schedule(self.now_ms + down_ms, Event::Start(index));
    }

    pub fn pause(&mut self, index: usize, for_ms: u64) {
        self.servers[index].paused_until_ms = self.now_ms + for_ms;
    }

    pub fn pins(&self, one: usize, other: usize) -> bool {
        self.pinned.as_ref().is_none_or(|pinned| pinned.contains(&(one, other)))
    }
}
