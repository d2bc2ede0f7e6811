//! What a process does to its files, call by call, as the kernel is asked.
//!
//! The process runs as it always does; one thread of it is stopped at each system call and looked at. A call that changes
//! files in a way not known here ends the recording with a panic, so that nothing is passed over.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    libc,
    sys::{
        ptrace,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// How a process begins the word by which it asks to be recorded from then on; its thread follows.
pub const READY: &str = "ready ";

/// How a process begins a word that is to be recorded; a number follows.
pub const DONE: &str = "done ";

/// A change of files, or a word.
#[derive(Debug)]
pub enum Call {
    /// A file was made.
    Made(PathBuf),
    /// A file was given another length.
    Cut(PathBuf, u64),
    /// Bytes were written at a place in a file.
    Written(PathBuf, u64, Vec<u8>),
    /// A file was brought to the disk.
    Synced(PathBuf),
    /// A folder was made.
    FolderMade(PathBuf),
    /// The names in a folder were brought to the disk.
    NamesSynced(PathBuf),
    /// A file was given another name.
    Renamed(PathBuf, PathBuf),
    /// A file was removed.
    Removed(PathBuf),
    /// [`DONE`] was said, with this number.
    Done(usize),
}

impl Call {
    /// Its name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Made(_) => "made",
            Self::Cut(..) => "cut",
            Self::Written(..) => "written",
            Self::Synced(_) => "synced",
            Self::FolderMade(_) => "folder made",
            Self::NamesSynced(_) => "names synced",
            Self::Renamed(..) => "renamed",
            Self::Removed(_) => "removed",
            Self::Done(_) => "done",
        }
    }
}

/// Runs a process that says [`READY`] on standard error and then waits for a line; records what its thread does in a folder.
pub fn record(command: &mut Command, folder: &Path) -> Vec<Call> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let thread = loop {
        let mut line = String::new();
        assert!(said.read_line(&mut line).unwrap() > 0, "the process ended before it was ready");
        if let Some(thread) = line.strip_prefix(READY) {
            break thread.trim().parse().unwrap();
        }
    };
    let (process, thread) = (child.id(), Pid::from_raw(thread));
    let mut recorder = Recorder {
        memory: File::open(format!("/proc/{process}/mem")).unwrap(),
        process,
        folder: folder.canonicalize().unwrap(),
        calls: Vec::new(),
    };
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD).expect("a process may trace its child");
    ptrace::interrupt(thread).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut entered = None;
    let ended_well = loop {
        let signal = match waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) if is_entry(thread) => {
                entered = Some(Entered::read(thread));
                None
            }
            WaitStatus::PtraceSyscall(_) => {
                let result = result(thread);
                // The first one may be an end whose beginning was not seen.
                if let Some(entered) = entered.take()
                    && result >= 0
                {
                    recorder.take(&entered, result.unsigned_abs());
                }
                None
            }
            WaitStatus::Stopped(_, signal) => Some(signal),
            WaitStatus::Exited(_, code) => break code == 0,
            WaitStatus::Signaled(..) => break false,
            _ => None,
        };
        ptrace::syscall(thread, signal).unwrap();
    };
    // Where it was the first thread, the process is gone with it.
    let ended_well = child.wait().map_or(ended_well, |status| status.success() && ended_well);
    assert!(ended_well, "the process failed: {}", said.lines().map_while(Result::ok).collect::<Vec<_>>().join("\n"));
    recorder.calls
}

/// A call as it begins.
struct Entered {
    number: i64,
    arguments: [u64; 6],
}

fn is_entry(thread: Pid) -> bool {
    ptrace::syscall_info(thread).unwrap().op == libc::PTRACE_SYSCALL_INFO_ENTRY
}

#[cfg(target_arch = "x86_64")]
impl Entered {
    fn read(thread: Pid) -> Self {
        let registers = ptrace::getregs(thread).unwrap();
        let libc::user_regs_struct { rdi, rsi, rdx, r10, r8, r9, .. } = registers;
        Self { number: registers.orig_rax.cast_signed(), arguments: [rdi, rsi, rdx, r10, r8, r9] }
    }
}

#[cfg(target_arch = "x86_64")]
fn result(thread: Pid) -> i64 {
    ptrace::getregs(thread).unwrap().rax.cast_signed()
}

#[cfg(target_arch = "aarch64")]
impl Entered {
    fn read(thread: Pid) -> Self {
        let registers = ptrace::getregs(thread).unwrap().regs;
        Self { number: registers[8].cast_signed(), arguments: registers[..6].try_into().unwrap() }
    }
}

#[cfg(target_arch = "aarch64")]
fn result(thread: Pid) -> i64 {
    ptrace::getregs(thread).unwrap().regs[0].cast_signed()
}

struct Recorder {
    memory: File,
    process: u32,
    folder: PathBuf,
    calls: Vec<Call>,
}

impl Recorder {
    /// Takes a call that went well.
    fn take(&mut self, entered: &Entered, result: u64) {
        let [first, second, third, fourth, fifth, _] = entered.arguments;
        match entered.number {
            libc::SYS_openat => self.opened(result, third),
            libc::SYS_write if first == 2 => self.said(second, result),
            libc::SYS_write => self.written(first, second, result, self.place(first) - result),
            libc::SYS_pwrite64 => self.written(first, second, result, fourth),
            libc::SYS_ftruncate => {
                let cut = self.file(first).map(|file| Call::Cut(file, second));
                self.calls.extend(cut);
            }
            libc::SYS_fsync | libc::SYS_fdatasync => self.synced(first),
            libc::SYS_mkdirat => self.folder_made(second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => self.folder_made(first),
            libc::SYS_renameat | libc::SYS_renameat2 => self.renamed(second, fourth),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => self.renamed(first, second),
            libc::SYS_unlinkat => self.removed(second),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => self.removed(first),
            libc::SYS_mmap => {
                let shared = fourth & libc::MAP_SHARED as u64 != 0 && fourth & libc::MAP_ANONYMOUS as u64 == 0;
                let writable = third & libc::PROT_WRITE as u64 != 0;
                assert!(!(shared && writable) || self.file(fifth).is_none(), "a file is written through memory");
            }
            libc::SYS_writev
            | libc::SYS_pwritev
            | libc::SYS_pwritev2
            | libc::SYS_fallocate
            | libc::SYS_copy_file_range => {
                let to = if entered.number == libc::SYS_copy_file_range { third } else { first };
                assert!(self.file(to).is_none(), "system call {} is not known here", entered.number);
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open | libc::SYS_creat | libc::SYS_link => self.unknown(entered),
            libc::SYS_linkat | libc::SYS_truncate | libc::SYS_io_uring_setup => self.unknown(entered),
            _ => {}
        }
    }

    fn unknown(&self, entered: &Entered) {
        panic!("system call {} is not known here", entered.number);
    }

    fn opened(&mut self, descriptor: u64, flags: u64) {
        let Some(file) = self.file(descriptor) else { return };
        assert!(flags & libc::O_TRUNC as u64 == 0, "a file is cut when it is opened");
        let was_made = |call: &Call| match call {
            Call::Made(made) if *made == file => Some(true),
            Call::Removed(removed) if *removed == file => Some(false),
            _ => None,
        };
        if flags & libc::O_CREAT as u64 != 0 && self.calls.iter().rev().find_map(was_made) != Some(true) {
            self.calls.push(Call::Made(file));
        }
    }

    fn said(&mut self, from: u64, length: u64) {
        let word = String::from_utf8(self.bytes(from, length)).unwrap();
        let number = word.strip_prefix(DONE).map(|number| number.trim().parse().unwrap());
        self.calls.extend(number.map(Call::Done));
    }

    fn written(&mut self, descriptor: u64, from: u64, length: u64, place: u64) {
        if let Some(file) = self.file(descriptor) {
            let bytes = self.bytes(from, length);
            self.calls.push(Call::Written(file, place, bytes));
        }
    }

    /// What is synced by a folder's descriptor are its names.
    fn synced(&mut self, descriptor: u64) {
        let path = self.path(descriptor);
        let synced = match path.strip_prefix(&self.folder) {
            Ok(folder) if path.is_dir() => Some(Call::NamesSynced(folder.to_owned())),
            _ => self.file(descriptor).map(Call::Synced),
        };
        self.calls.extend(synced);
    }

    fn folder_made(&mut self, name: u64) {
        let made = self.named(name).map(Call::FolderMade);
        self.calls.extend(made);
    }

    fn renamed(&mut self, from: u64, to: u64) {
        match (self.named(from), self.named(to)) {
            (Some(from), Some(to)) => self.calls.push(Call::Renamed(from, to)),
            (None, None) => {}
            (from, to) => panic!("{from:?} was renamed to {to:?}"),
        }
    }

    fn removed(&mut self, name: u64) {
        let removed = self.named(name).map(Call::Removed);
        self.calls.extend(removed);
    }

    /// The file of a name in the process's memory, if it is one of those recorded.
    fn named(&self, name: u64) -> Option<PathBuf> {
        let mut bytes = Vec::new();
        while let Some(byte) = self.bytes(name + bytes.len() as u64, 1).pop().filter(|byte| *byte != 0) {
            bytes.push(byte);
        }
        self.relative(&PathBuf::from(String::from_utf8(bytes).unwrap()))
    }

    fn bytes(&self, from: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.memory.read_exact_at(&mut bytes, from).unwrap();
        bytes
    }

    /// Where the next byte would go, after a write.
    fn place(&self, descriptor: u64) -> u64 {
        let told = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.process)).unwrap();
        told.lines().find_map(|line| line.strip_prefix("pos:")).unwrap().trim().parse().unwrap()
    }

    fn path(&self, descriptor: u64) -> PathBuf {
        fs::read_link(format!("/proc/{}/fd/{descriptor}", self.process)).unwrap_or_default()
    }

    /// The file behind a descriptor, if it is one of those recorded and has a name still.
    fn file(&self, descriptor: u64) -> Option<PathBuf> {
        self.relative(&self.path(descriptor)).filter(|path| !path.to_string_lossy().ends_with(" (deleted)"))
    }

    /// The memory that SQLite's connections share is made anew after a crash, so what is in that file does not matter.
    fn relative(&self, path: &Path) -> Option<PathBuf> {
        let inside = path.strip_prefix(&self.folder).ok().filter(|path| !path.as_os_str().is_empty())?;
        (!inside.to_string_lossy().ends_with("-shm")).then(|| inside.to_owned())
    }
}
