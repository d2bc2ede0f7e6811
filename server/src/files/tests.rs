//! Files on a disk of their own.

use socp::{id::ServerId, message::Address};

use super::*;

fn file(bytes: u64) -> File {
    let user = |name| UserName::parse(name).unwrap();
    let recipient = Address { home: ServerId::of_key(&[2; 32]), user: user("bob") };
    File { id: FileId::from_bytes(&[7; 16]).unwrap(), owner: user("alice"), recipient, bytes }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("files");
    (parent, path)
}

async fn all(files: &Files, file: &File, offset: u64) -> Vec<u8> {
    let mut reading = files.read(file, offset).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = reading.next().await.unwrap() {
        assert!(part.len() <= FILE_PART_BYTES);
        bytes.extend(part);
    }
    bytes
}

#[tokio::test]
async fn a_file_is_under_its_name_once_it_is_whole_and_goes_on_after_a_restart() {
    let (_parent, path) = folder();
    let (files, kept) = Files::open(&path).unwrap();
    assert_eq!(kept, []);
    let content: Vec<u8> = (0..600_000).map(|place| (place % 253) as u8).collect();
    let file = file(content.len() as u64);
    assert_eq!(files.create(file.clone(), 5).await, Ok(0));
    let mut upload = files.upload(&file, 0).await.unwrap();
    upload.write(Bytes::copy_from_slice(&content[..400_000])).await.unwrap();
    assert_eq!(upload.finish().await, Ok(false));
    assert!(!files.whole(file.id).exists());
    drop(files);

    let (files, kept) = Files::open(&path).unwrap();
    assert_eq!(kept, [Kept { file: file.clone(), created_unix_ms: 5, is_whole: false }]);
    assert_eq!(files.create(file.clone(), 9).await, Ok(400_000));
    for wrong in [0, 399_999, 400_001] {
        let rejection = files.upload(&file, wrong).await.err().unwrap();
        assert_eq!(
            (rejection.reason, &rejection.metadata[..]),
            (Reason::StatementInvalid, &[("field", "offset".into())][..])
        );
    }
    let mut upload = files.upload(&file, 400_000).await.unwrap();
    let rejection = upload.write(Bytes::from(vec![0; 200_001])).await.unwrap_err();
    assert_eq!(rejection.reason, Reason::TooLarge, "one byte more than announced");
    upload.write(Bytes::copy_from_slice(&content[400_000..])).await.unwrap();
    assert_eq!(upload.finish().await, Ok(true));
    assert!(files.whole(file.id).exists() && !files.part(file.id).exists());
    assert_eq!(all(&files, &file, 0).await, content);
    assert_eq!(all(&files, &file, 599_999).await, content[599_999..]);
    assert!(all(&files, &file, 600_000).await.is_empty());
    assert_eq!(files.read(&file, 600_001).await.err().unwrap().reason, Reason::StatementInvalid);
    drop(files);

    let (files, kept) = Files::open(&path).unwrap();
    assert_eq!(kept, [Kept { file: file.clone(), created_unix_ms: 5, is_whole: true }]);
    assert_eq!(files.create(file.clone(), 9).await, Ok(600_000), "it is whole");
    files.remove_now(file.id);
    assert_eq!(Files::open(&path).unwrap().1, []);
}

#[tokio::test]
async fn a_later_upload_of_a_file_takes_the_place_of_one_under_way() {
    let (_parent, path) = folder();
    let (files, _) = Files::open(&path).unwrap();
    let file = file(100);
    files.create(file.clone(), 5).await.unwrap();
    let mut first = files.upload(&file, 0).await.unwrap();
    first.write(Bytes::from_static(&[1; 60])).await.unwrap();
    let mut second = files.upload(&file, 60).await.unwrap();
    assert_eq!(first.replaced().await.reason, Reason::Replaced);
    second.write(Bytes::from_static(&[2; 40])).await.unwrap();
    assert_eq!(second.finish().await, Ok(true));
}

#[tokio::test]
async fn what_was_hardly_begun_is_removed_and_what_is_strange_is_left_alone() {
    let (_parent, path) = folder();
    Files::open(&path).unwrap();
    let torn = path.join(format!("{}.part", file(1).id));
    fs::write(&torn, "{\"owner\":").unwrap();
    let damaged = path.join(FileId::from_bytes(&[8; 16]).unwrap().to_string());
    fs::write(&damaged, [&header(&file(100), 1)[..], &[0; 99]].concat()).unwrap();
    let strange = path.join("notes.txt");
    fs::write(&strange, "mine").unwrap();
    assert_eq!(Files::open(&path).unwrap().1, []);
    assert!(!torn.exists() && damaged.exists() && strange.exists());
}

#[tokio::test]
async fn a_user_has_so_many_transfers_under_way_and_not_one_more_and_so_has_the_server() {
    let (_parent, path) = folder();
    let (files, _) = Files::open(&path).unwrap();
    let alice = UserName::parse("alice").unwrap();
    let mut places: Vec<Place> = (0..TRANSFERS_PER_USER_MAX).map(|_| files.place(Some(&alice)).unwrap()).collect();
    assert_eq!(files.place(Some(&alice)).err().unwrap().reason, Reason::TooMany);
    let bob = UserName::parse("bob").unwrap();
    drop(files.place(Some(&bob)).unwrap());
    places.pop();
    places.push(files.place(Some(&alice)).unwrap());
    let others = TRANSFERS_MAX - TRANSFERS_PER_USER_MAX;
    places.extend((0..others).map(|_| files.place(None).unwrap()));
    assert_eq!(files.place(None).err().unwrap().reason, Reason::TooMany);
    drop(places);
    files.place(Some(&alice)).unwrap();
}
