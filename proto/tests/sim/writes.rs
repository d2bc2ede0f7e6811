//! The disk as it takes its time: records that are written together, and pages that are read.

use socp::{
    input::{AttachmentId, Input, WriteId},
    name::UserName,
    output::Record,
};

use crate::{
    mail::Wanted,
    server::Server,
    world::{Event, World},
};

impl World {
    /// Has a record written, some time later.
    pub fn write(&mut self, server: usize, write: WriteId, record: Record) {
        // Now and then a disk is slow, and what happens meanwhile happens before it is done.
        let is_slow = self.faults_on && self.rng.u32(0..4) == 0;
        let ms = self.rng.u64(0..if is_slow { 600 } else { 8 });
        // The word of it waits its turn among all else that the server has to do, while others read what is there.
        let word_ms = self.rng.u64(0..if is_slow { 60 } else { 4 });
        let Server { disk, starts, .. } = &mut self.servers[server];
        // Several that are given out close to one another share a commit.
        disk.mail.written_ms = disk.mail.written_ms.max(self.now_ms + ms);
        disk.mail.reported_ms = disk.mail.reported_ms.max(disk.mail.written_ms + word_ms);
        disk.mail.write(write, record);
        let (at_ms, start) = (disk.mail.reported_ms, *starts);
        self.schedule(at_ms, Event::Written { server, start, write });
    }

    /// The disk has all up to this.
    pub fn written(&mut self, server: usize, start: u64, write: WriteId) {
        let Server { starts, node, disk, .. } = &mut self.servers[server];
        if *starts == start && node.is_some() {
            disk.mail.reach(write);
            self.input(server, Input::Written { write });
        }
    }

    /// Has something read for a stream, some time later.
    pub fn ask_to_read(&mut self, server: usize, attachment: AttachmentId, user: UserName, wanted: Wanted) {
        let start = self.servers[server].starts;
        let at_ms = self.now_ms + self.rng.u64(0..5);
        self.schedule(at_ms, Event::Replay { server, start, attachment, user, wanted });
    }

    /// Reads what was asked for; a stream that is gone reads nothing.
    pub fn replay(&mut self, server: usize, start: u64, attachment: AttachmentId, user: &UserName, wanted: &Wanted) {
        let entries_max = self.rng.usize(1..5);
        let Server { starts, node, disk, streams, .. } = &mut self.servers[server];
        disk.mail.settle(self.now_ms);
        if *starts == start && node.is_some() && streams.contains_key(&attachment) {
            let input = match wanted {
                Wanted::Entries { after } => {
                    Input::Replayed { attachment, page: disk.mail.page(user, *after, entries_max) }
                }
                Wanted::Posts { positions } => {
                    let page = disk.mail.channel.posts(user, &positions[..entries_max.min(positions.len())]);
                    Input::PostsReplayed { attachment, page }
                }
            };
            self.input(server, input);
        }
    }

    /// Whether a server waits for its disk.
    pub fn is_writing(&self, index: usize) -> bool {
        self.servers[index].disk.mail.under_way() > 0
    }
}
