//! What a configuration file and its flags come to, and how mistakes in them are told.

use socp::node::{FileRoom, InboxRoom};

use super::*;
use crate::limits::WEB_ORIGINS_MAX;

const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn resolve(text: &str, flags: Flags) -> Result<Config, ConfigError> {
    let path = Path::new("server.toml");
    let data = flags.data.clone().or(Some("data".into()));
    File::parse(text, path).and_then(|file| Config::resolve(Some(path), file, Flags { data, ..flags }))
}

fn refusal(text: &str) -> String {
    let error = resolve(text, Flags::default()).unwrap_err();
    assert!(!error.hint().is_empty());
    error.to_string()
}

fn peer(name: &str, address: &str, fingerprint: &str) -> String {
    format!("[[peer]]\nname = \"{name}\"\naddress = \"{address}\"\nfingerprint = \"{fingerprint}\"\n")
}

#[test]
fn an_empty_file_is_a_server_for_this_machine() {
    let config = resolve("", Flags::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7443");
    assert_eq!(config.federation_listen.to_string(), "127.0.0.1:7444");
    assert_eq!(config.settings.name.as_str(), "localhost");
    assert_eq!(config.settings.registration, RegistrationPolicy::Open);
    assert!(config.settings.introduces);
    assert_eq!(config.settings.attach_grace_ms, 2_000);
    assert_eq!(config.settings.inbox, InboxRoom::default());
    assert_eq!(config.settings.files, FileRoom::default());
    assert_eq!(config.log, "info");
    assert_eq!(config.metrics_listen, MetricsListen::IfFree("127.0.0.1:7480".parse().unwrap()));
    assert!(config.peers.is_empty() && config.tls.is_none() && config.web_origins.is_empty());
}

#[test]
fn every_key_is_taken() {
    let text = format!(
        "name = \"server-a\"\ndata = \"elsewhere\"\nlisten = \"0.0.0.0:8443\"\nfederation_listen = \"[::]:8444\"\nmetrics_listen = \"[::1]:9480\"\n\
         public_names = [\"chat.example.org\", \"192.0.2.1\"]\nweb_origins = [\"https://app.example.org\"]\nregistration = \"closed\"\nintroduce = false\nlog = \"warn\"\n\
         [tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n\
         [timing]\nattach_grace_ms = 1\nlink_grace_ms = 2\nkeep_alive_ms = 50\nlink_dead_ms = 100\ngoodbye_hold_ms = 5000\nredial_ms_max = 60\n\
         [inbox]\nmessages_max = 8\nbytes_max = 1048576\ndays = 1\n\
         [files]\nfile_bytes_max = 1\nuser_bytes_max = 2\nbytes_max = 3\ndays = 4\n{}",
        peer("server-b", "chat.example.net:7444", ID)
    );
    let config = resolve(&text, Flags::default()).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.name.as_str(), "server-a");
    assert_eq!(settings.registration, RegistrationPolicy::Closed);
    assert!(!settings.introduces);
    assert_eq!([settings.attach_grace_ms, settings.link_grace_ms, settings.keep_alive_ms], [1, 2, 50]);
    assert_eq!([settings.link_dead_ms, settings.redial_ms_max], [100, 60]);
    assert_eq!(settings.inbox, InboxRoom { entries_max: 8, bytes_max: 1 << 20, days: 1 });
    let files = FileRoom { file_bytes_max: 1, user_bytes_max: 2, bytes_max: 3, days: 4 };
    assert_eq!(settings.files, files);
    assert_eq!(
        settings.peers,
        [Pin { id: ServerId::parse(ID).unwrap(), name: "server-b".parse().unwrap(), is_dialled: true }]
    );
    assert_eq!(config.peers[0].address.as_deref(), Some("chat.example.net:7444"));
    assert_eq!(config.metrics_listen, MetricsListen::At("[::1]:9480".parse().unwrap()));
    assert_eq!(config.web_origins, [Origin::parse("https://app.example.org").unwrap()]);
    assert_eq!(config.tls, Some(OwnFiles { certificate: "c.pem".into(), key: "k.pem".into() }));
}

#[test]
fn flags_win_over_the_file() {
    let flags = Flags {
        name: Some("server-b".into()),
        data: Some("there".into()),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        metrics_listen: Some("off".parse().unwrap()),
        registration: Some(Registration::Invite),
        ..Flags::default()
    };
    let config = resolve("name = \"server-a\"\nregistration = \"open\"", flags).unwrap();
    assert_eq!(config.settings.name.as_str(), "server-b");
    assert_eq!(config.data, Path::new("there"));
    assert_eq!(config.listen.port(), 0);
    assert_eq!(config.metrics_listen, MetricsListen::Off);
    assert_eq!(config.settings.registration, RegistrationPolicy::Invite);
}

#[test]
fn a_server_that_others_reach_wants_a_name_and_invites() {
    assert!(refusal("listen = \"0.0.0.0:7443\"").starts_with("`name` in `server.toml`: is not set"));
    let config = resolve("name = \"a\"\nlisten = \"0.0.0.0:7443\"", Flags::default()).unwrap();
    assert_eq!(config.settings.registration, RegistrationPolicy::Invite);
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let refused = refusal("name = \"a\"\nregistraton = \"open\"\n");
    assert!(refused.contains("`server.toml`, line 2: unknown field `registraton`"), "{refused}");
    assert!(refusal("[timing]\nkeep_alive = 1").contains("line 2"));
    assert!(refusal("[tls]\ncertificate = \"c\"").contains("missing field `key`"));
}

#[test]
fn a_value_of_another_kind_is_refused_with_its_line() {
    assert!(refusal("\n\nlisten = 7443").contains("line 3"));
    assert!(refusal("registration = \"maybe\"").contains("line 1"));
    assert!(refusal("name = ").contains("line 1"));
    let refused = refusal("\nmetrics_listen = \"on\"");
    assert!(refused.contains("line 2") && refused.contains("`on` is neither an address"), "{refused}");
}

#[test]
fn a_value_out_of_range_is_refused_by_its_key() {
    for (text, key) in [
        ("name = \"Server A\"".to_owned(), "`name`"),
        ("public_names = [\"chat.example.org:7443\"]".to_owned(), "`public_names`"),
        ("web_origins = [\"https://app.example.org/\"]".to_owned(), "`web_origins`"),
        ("web_origins = [\"http://localhost\", \"*\"]".to_owned(), "`web_origins`"),
        ("listen = \"127.0.0.1:7444\"".to_owned(), "`federation_listen`"),
        ("metrics_listen = \"127.0.0.1:7443\"".to_owned(), "`metrics_listen`"),
        ("log = \"info,=\"".to_owned(), "`log`"),
        ("[timing]\nredial_ms_max = 0".to_owned(), "`timing.redial_ms_max`"),
        ("[timing]\nlink_dead_ms = 999".to_owned(), "`timing.link_dead_ms`"),
        ("[inbox]\nmessages_max = 7".to_owned(), "`inbox.messages_max`"),
        ("[inbox]\nmessages_max = 1000001".to_owned(), "`inbox.messages_max`"),
        ("[inbox]\nbytes_max = 1048575".to_owned(), "`inbox.bytes_max`"),
        ("[inbox]\nbytes_max = 1099511627777".to_owned(), "`inbox.bytes_max`"),
        ("[inbox]\ndays = 0".to_owned(), "`inbox.days`"),
        ("[inbox]\ndays = 3651".to_owned(), "`inbox.days`"),
        ("[files]\nfile_bytes_max = 0".to_owned(), "`files.file_bytes_max`"),
        ("[files]\nfile_bytes_max = 1099511627777".to_owned(), "`files.file_bytes_max`"),
        ("[files]\nuser_bytes_max = 2147483647".to_owned(), "`files.user_bytes_max`"),
        ("[files]\nuser_bytes_max = 1125899906842625".to_owned(), "`files.user_bytes_max`"),
        ("[files]\nbytes_max = 4294967295".to_owned(), "`files.bytes_max`"),
        ("[files]\nbytes_max = 1125899906842625".to_owned(), "`files.bytes_max`"),
        ("[files]\ndays = 0".to_owned(), "`files.days`"),
        ("[files]\ndays = 366".to_owned(), "`files.days`"),
        (peer("server-b", "chat.example.net", ID), "`peer.address`"),
        (peer("server-b", "chat.example.net:0", ID), "`peer.address`"),
        (peer("server-b", "chat.example.net:7444", &ID[1..]), "`peer.fingerprint`"),
        (peer("Server B", "chat.example.net:7444", ID), "`peer.name`"),
        (peer("localhost", "chat.example.net:7444", ID), "`peer.name`"),
        (peer("b", "b:7444", ID) + &peer("c", "c:7444", ID), "`peer.fingerprint`"),
        (peer("b", "b:7444", ID) + &peer("b", "c:7444", &ID.replace('0', "1")), "`peer.name`"),
    ] {
        let refused = refusal(&text);
        assert!(refused.starts_with(key), "{text}: {refused}");
        assert!(refused.contains("`server.toml`"), "{refused}");
    }
}

#[test]
fn times_are_taken_at_their_limits_and_not_past_them() {
    let timing = |line: &str| resolve(&format!("[timing]\n{line}"), Flags::default());
    for good in [
        "attach_grace_ms = 60000",
        "goodbye_hold_ms = 10000",
        "keep_alive_ms = 50",
        "redial_ms_max = 50",
        "link_dead_ms = 1000",
    ] {
        timing(good).unwrap();
    }
    for bad in [
        "attach_grace_ms = 60001",
        "goodbye_hold_ms = 10001",
        "keep_alive_ms = 49",
        "redial_ms_max = 49",
        "link_dead_ms = 60001",
    ] {
        timing(bad).unwrap_err();
    }
}

#[test]
fn so_many_origins_are_taken_and_one_more_is_not() {
    let origins = |count: usize| {
        let list: Vec<String> = (0..count).map(|number| format!("\"https://{number}.example.org\"")).collect();
        format!("web_origins = [{}]", list.join(", "))
    };
    assert_eq!(resolve(&origins(WEB_ORIGINS_MAX), Flags::default()).unwrap().web_origins.len(), WEB_ORIGINS_MAX);
    assert!(refusal(&origins(WEB_ORIGINS_MAX + 1)).starts_with("`web_origins`"));
}

#[test]
fn a_peer_with_the_servers_own_id_is_refused() {
    let config = resolve(&peer("server-b", "[::1]:7444", ID), Flags::default()).unwrap();
    config.check_identity(ServerId::of_key(&[1; 32])).unwrap();
    let error = config.check_identity(ServerId::parse(ID).unwrap()).unwrap_err();
    assert!(error.to_string().contains("own id"), "{error}");
}

#[test]
fn paths_in_a_file_start_at_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.toml");
    fs::write(&path, "data = \"here\"\n[tls]\ncertificate = \"c.pem\"\nkey = \"/k.pem\"").unwrap();
    let config = Config::load(Some(&path), Flags::default()).unwrap();
    assert_eq!(config.data, folder.path().join("here"));
    let tls = OwnFiles { certificate: folder.path().join("c.pem"), key: "/k.pem".into() };
    assert_eq!(config.tls, Some(tls));
    assert_eq!(Config::data_folder(Some(&path), None).unwrap(), folder.path().join("here"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Some(Path::new("/nowhere/server.toml")), Flags::default()).unwrap_err();
    assert!(error.to_string().contains("`/nowhere/server.toml`"), "{error}");
}

#[test]
fn a_public_name_stands_in_for_the_address_where_it_leads_there() {
    let config = resolve("public_names = [\"chat.example.org\"]", Flags::default()).unwrap();
    let [loopback, everywhere] = ["127.0.0.1:1", "[::]:2"].map(|address| address.parse().unwrap());
    assert_eq!(config.client_reached(loopback), "chat.example.org:1");
    assert_eq!(config.federation_reached(loopback), "127.0.0.1:1");
    assert_eq!(config.federation_reached(everywhere), "chat.example.org:2");
    let nameless = resolve("", Flags::default()).unwrap();
    assert_eq!(nameless.client_reached(everywhere), "localhost:2");
    assert_eq!(nameless.client_reached("[2001:db8::1]:3".parse().unwrap()), "[2001:db8::1]:3");
}

#[test]
fn what_is_shown_comes_to_the_same_when_read() {
    let text = "introduce = false\nmetrics_listen = \"off\"\nweb_origins = [\"http://[::1]:8080\"]\n".to_owned()
        + &peer("server-b", "b:7444", ID)
        + "[tls]\ncertificate = \"c \\\"q\\\".pem\"\nkey = \"k\"";
    let config = resolve(&text, Flags::default()).unwrap();
    let again = resolve(&config.to_string(), Flags::default()).unwrap();
    assert_eq!(config.to_json(), again.to_json());
    assert_eq!(config.to_json()["peer"][0]["fingerprint"], ID);
    assert_eq!(config.to_json()["web_origins"][0], "http://[::1]:8080");
}
