//! The directory's promises, as users of three servers see them on their screens.

use rustix::process::Signal;

use crate::harness::{
    ORDERS,
    caller::{Caller, statement},
    client::{Live, User, changes},
    mesh::{self, Mesh},
    server::Server,
    wire::Wire,
};

#[test]
fn a_user_who_comes_online_is_shown_to_every_watcher_on_every_server_with_the_key_needed_to_message_at_once() {
    let mut mesh = Mesh::started(&[0, 1, 2]);
    let alice = User::register("alice", &mesh[0]);
    let watchers: Vec<User> =
        ["bob", "carol", "dave"].iter().enumerate().map(|(index, name)| User::register(name, &mesh[index])).collect();
    for (round, order) in ORDERS.iter().enumerate() {
        if round > 0 {
            mesh.stop_all();
            order.iter().for_each(|&index| mesh.start(index));
        }
        let mut chats: Vec<Live> = watchers.iter().map(User::chat).collect();
        let home_id = mesh.site(0).id;
        for chat in &mut chats {
            ["bob@server-a", "carol@server-b", "dave@server-c"].iter().for_each(|label| chat.shows(label));
        }
        let shown = alice.chat();
        for (chat, watcher) in chats.iter_mut().zip(&watchers) {
            let added = chat.added("alice@server-a");
            assert_eq!(added["server_id"], home_id.to_string(), "{order:?}");
            // Nothing is asked for between the two lines: the key came with her.
            chat.tell("alice@server-a", &format!("from {}", watcher.label));
        }
        drop((shown, chats));
    }
    // What the lines above cannot show: it is the whole statement, signed by her.
    let eve = Caller::new("eve", &mesh[2], Wire::H3);
    let _online = eve.attach();
    let caller = Caller::new("mallory", &mesh[1], Wire::H3);
    let mut watch = caller.watch("").expect("the token is good");
    let signed = loop {
        let changes = watch.next().changes;
        let entry = changes.into_iter().find_map(|change| match change.change {
            Some(socp::v1::directory_change::Change::Added(entry)) if entry.user == "eve@server-c" => Some(entry),
            _ => None,
        });
        if let Some(entry) = entry {
            break entry.key_statement;
        }
    };
    assert_eq!(signed, Some(statement("eve", mesh[2].id)));
}

#[test]
fn users_of_the_same_server_see_each_other_through_the_same_path_as_remote_ones() {
    let mesh = Mesh::started(&[0, 1]);
    let [alice, bob, carol] =
        [("alice", 0), ("bob", 0), ("carol", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let (mut near, mut far) = (alice.watch(), carol.watch());
    mesh.expect_link(1, 0);
    let chat = bob.chat();
    let (on_a, on_b) = (near.added("bob@server-a"), far.added("bob@server-a"));
    for key in ["user", "name", "server", "server_id", "fingerprint", "sessions", "epoch", "online_since"] {
        assert_eq!(on_a[key], on_b[key], "{key}");
    }
    chat.quit();
    near.removed("bob@server-a", "left");
    far.removed("bob@server-a", "left");
}

#[test]
fn the_result_is_the_same_for_every_order_in_which_servers_start_and_users_come_and_go() {
    let mut mesh = Mesh::started(&[0, 1, 2]);
    let at = |index: usize, mesh: &Mesh| {
        [["alice", "bob", "carol"], ["dave", "eve", "mallory"]].map(|names| User::register(names[index], &mesh[index]))
    };
    let users = [0, 1, 2].map(|index| at(index, &mesh));
    for (round, order) in ORDERS.iter().enumerate() {
        if round > 0 {
            (0..3).for_each(|index| mesh.kill(index));
        }
        let mut chats = Vec::new();
        for &index in order {
            if round > 0 {
                mesh.start(index);
            }
            // They come and go before the next server is there.
            let [stays, goes] = &users[index];
            chats.push(stays.chat());
            goes.chat().quit();
        }
        for chat in &mut chats {
            let all = ["alice@server-a", "bob@server-b", "carol@server-c"];
            all.iter().for_each(|label| chat.shows(label));
            chat.lists(&all);
        }
    }
}

#[test]
fn a_server_that_starts_late_or_again_gets_everybody() {
    let mut mesh = Mesh::started(&[0, 1, 2]);
    let [alice, bob, carol] =
        [("alice", 0), ("bob", 1), ("carol", 2)].map(|(name, at)| User::register(name, &mesh[at]));
    let mut alice = alice.chat();
    mesh.kill(2);
    let _bob = bob.chat();
    alice.added("bob@server-b");
    mesh.start(2);
    let mut carol = carol.chat();
    carol.shows("alice@server-a");
    carol.shows("bob@server-b");
    alice.added("carol@server-c");
    let all = ["alice@server-a", "bob@server-b", "carol@server-c"];
    carol.lists(&all);
    alice.lists(&all);
}

#[test]
fn a_user_who_left_is_never_in_a_later_snapshot() {
    let mut mesh = Mesh::started(&[0, 1]);
    let [alice, bob, carol] =
        [("alice", 0), ("bob", 0), ("carol", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let mut alice = alice.chat();
    for leaves_by in ["/quit", "a signal"] {
        let mut bob = bob.chat();
        alice.added("bob@server-a");
        match leaves_by {
            "/quit" => bob.quit(),
            _ => {
                bob.signal(Signal::TERM);
                bob.wait();
            }
        }
        alice.removed("bob@server-a", "left");
    }
    mesh.stop(1);
    mesh.start(1);
    let mut late = carol.watch();
    late.shows("alice@server-a");
    labels_of_list(&carol, &["alice@server-a"]);
    let told = late.passed();
    assert!(!changes(&told).iter().any(|(_, user)| user.starts_with("bob")), "{told:?}");
    assert!(!late.initial.iter().any(|user| user.starts_with("bob")), "{:?}", late.initial);
}

fn labels_of_list(user: &User, labels: &[&str]) {
    let lines = user.json(&["list"]);
    let users = lines.iter().filter(|line| line["event"] == "user").map(|line| line["user"].as_str().unwrap());
    assert_eq!(users.collect::<Vec<_>>(), labels);
}

#[test]
fn a_user_who_goes_offline_is_removed_everywhere() {
    let mesh = Mesh::started(&[0, 1, 2]);
    let [alice, bob, carol] =
        [("alice", 0), ("bob", 1), ("carol", 2)].map(|(name, at)| User::register(name, &mesh[at]));
    let (mut alice, mut carol, mut bob) = (alice.chat(), carol.chat(), bob.chat());
    ["alice@server-a", "carol@server-c"].iter().for_each(|label| bob.shows(label));
    alice.shows("bob@server-b");
    carol.shows("bob@server-b");
    alice.tell("bob@server-b", "hello");
    bob.message("hello");
    bob.quit();
    alice.removed("bob@server-b", "left");
    carol.removed("bob@server-b", "left");
    // Alice addressed him last, so her selection is cleared, with a notice; Carol did not.
    let gone = alice.expect("that the recipient went offline", |event| event["event"] == "recipient_offline");
    assert_eq!(gone["user"], "bob@server-b");
    alice.say("are you there?");
    let refused = alice.answer();
    assert_eq!(refused["reason"], "USAGE", "nobody is selected: {refused}");
    alice.lists(&["alice@server-a", "carol@server-c"]);
    carol.lists(&["alice@server-a", "carol@server-c"]);
    let told = carol.passed();
    assert!(!told.iter().any(|event| event["event"] == "recipient_offline"), "{told:?}");
}

#[test]
fn log_out_and_in_within_a_second_is_seen_as_removed_then_added_and_ends_online() {
    let mesh = Mesh::started(&[0, 1]);
    let [bob, carol] = [("bob", 0), ("carol", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let alice = Caller::new("alice", &mesh[0], Wire::H3);
    let mut watches = [bob.watch(), carol.watch()];
    mesh.expect_link(1, 0);
    let first = alice.attach();
    watches.iter_mut().for_each(|watch| drop(watch.added("alice@server-a")));
    watches.iter_mut().for_each(|watch| drop(watch.passed()));
    let (_, second) = (log_out(&alice), Caller::over("alice", &mesh[0], alice.channel.clone()));
    let _online = second.attach();
    drop(first);
    for watch in &mut watches {
        watch.removed("alice@server-a", "left");
        watch.added("alice@server-a");
        assert_eq!(changes(&watch.passed()), [], "these two and nothing between");
    }
    labels_of_list(&carol, &["alice@server-a"]);
}

fn log_out(caller: &Caller) {
    use crate::harness::soon;
    let request = caller.request(socp::v1::LogOutRequest::default());
    soon(caller.accounts().log_out(request)).expect("the token is good");
}

#[test]
fn a_goodbye_removes_the_users_of_a_server_at_once() {
    let mut mesh = Mesh::started(&[0, 1]);
    let [alice, bob] = [("alice", 0), ("bob", 1)].map(|(name, at)| User::register(name, &mesh[at]));
    let (mut alice, _bob) = (alice.chat(), bob.chat());
    alice.shows("bob@server-b");
    mesh.stop(1);
    alice.removed("bob@server-b", "unreachable");
    mesh.start(1);
    // His client comes back by itself, and nobody has to do anything.
    alice.added("bob@server-b");
}

#[test]
fn the_list_is_a_view_of_the_same_state_sorted_local_and_remote() {
    let mesh = Mesh::started(&[0, 1]);
    let names = ["carol", "alice", "bob", "dave"];
    let callers: Vec<Caller> =
        names.iter().enumerate().map(|(index, name)| Caller::new(name, &mesh[index % 2], Wire::H3)).collect();
    let _online: Vec<_> = callers.iter().map(Caller::attach).collect();
    // A name that two servers have is listed twice, by server.
    let twin = Caller::new("alice", &mesh[0], Wire::Tcp);
    let _twin = twin.attach();
    let eve = User::register("eve", &mesh[1]);
    let mut chat = eve.chat();
    let all = ["alice@server-a", "alice@server-b", "bob@server-a", "carol@server-a", "dave@server-b", "eve@server-b"];
    all.iter().for_each(|label| chat.shows(label));
    assert_eq!(chat.list(), all, "/list");
    labels_of_list(&eve, &all);
    let mut watch = eve.watch();
    assert_eq!(watch.initial, all, "the watch");
    drop(_twin);
    watch.removed("alice@server-a", "left");
    chat.removed("alice@server-a", "left");
    assert_eq!(chat.list(), all[1..], "/list");
    labels_of_list(&eve, &all[1..]);
}

#[test]
fn a_server_alone_shows_its_users_without_any_peer() {
    let (_site, server) = mesh::alone();
    let (alice, bob) = pair(&server);
    let mut chat = alice.chat();
    let _bob = bob.chat();
    chat.added("bob@server-a");
    chat.lists(&["alice@server-a", "bob@server-a"]);
}

fn pair(server: &Server) -> (User, User) {
    (User::register("alice", server), User::register("bob", server))
}
