//! The data directory: one process at a time, nobody else's to read, and the secret of the hash keys.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::store::OpenError;

const LOCK: &str = "rejoinder.lock";
const SECRET: &str = "secret";
const DATABASE: &str = "entries.redb";

/// An open data directory. The lock lasts as long as this value, and no longer than the process.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where there is none, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        make_private(path)?;
        let lock_path = path.join(LOCK);
        let lock = create(&lock_path).map_err(|source| failed("open", &lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed("lock", &lock_path, source)),
        }
    }

    /// The database's file.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// The secret kept here, made the first time.
    pub(super) fn secret(&self) -> Result<[u8; 32], OpenError> {
        let path = self.path.join(SECRET);
        match read_secret(&path) {
            Ok(Some(secret)) => return Ok(secret),
            Ok(None) => {
                let aside = move_aside(&path).map_err(|source| failed("move aside", &path, source))?;
                tracing::error!(file = %path.display(), moved_to = %aside.display(),
                    "the secret is not 32 bytes long; begun anew, so what was stored before is not found again");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(failed("read", &path, source)),
        }
        let secret = random()?;
        self.write_secret(&path, &secret).map_err(|source| failed("write", &path, source))?;
        Ok(secret)
    }

    /// Written beside its place and moved there, so that a crash leaves none or the whole.
    fn write_secret(&self, path: &Path, secret: &[u8]) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = create(&beside)?;
        file.set_len(0)?;
        file.write_all(secret)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        self.sync()
    }

    /// Makes new names in the folder durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(unix)]
        File::open(&self.path)?.sync_all()?;
        Ok(())
    }
}

/// 32 bytes that nobody can guess.
pub(in crate::store) fn random() -> Result<[u8; 32], OpenError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(OpenError::Random)?;
    Ok(secret)
}

/// `None` where the file is not as long as a secret.
fn read_secret(path: &Path) -> io::Result<Option<[u8; 32]>> {
    let file = File::open(path)?;
    restrict(&file)?;
    let mut content = Vec::with_capacity(33);
    file.take(33).read_to_end(&mut content)?;
    Ok(content.try_into().ok())
}

/// Opens a file for reading and writing, 0600 whatever the umask, made where there is none.
pub(super) fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    restrict(&file)?;
    Ok(file)
}

/// Takes a file's permissions away from everyone else, where an older umask gave some.
fn restrict(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

/// Renames a file out of the way and says to what.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Two in one second get two names.
    let free = (0_u32..).map(|again| match again {
        0 => path.with_file_name(format!("{name}.corrupt-{now}")),
        _ => path.with_file_name(format!("{name}.corrupt-{now}.{again}")),
    });
    let aside = free.into_iter().find(|aside| !aside.exists()).unwrap_or_else(|| path.to_owned());
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Makes the folder 0700, whatever the umask. One that was there is taken from others only where nothing but
/// ours is in it: another program's folder is not ours to close.
fn make_private(path: &Path) -> Result<(), OpenError> {
    let existed = path.is_dir();
    if !existed {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(|source| failed("create the folder", path, source))?;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let metadata = fs::metadata(path).map_err(|source| failed("read the folder", path, source))?;
        if metadata.permissions().mode() & 0o077 != 0 {
            let ours = !existed || holds_only_ours(path).unwrap_or(false);
            let private = fs::Permissions::from_mode(0o700);
            if !ours || fs::set_permissions(path, private).is_err() {
                tracing::warn!(folder = %path.display(),
                    "others may enter the data directory; its files are closed to them, their names are not");
            }
        }
    }
    Ok(())
}

#[cfg(unix)]
fn holds_only_ours(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if ![LOCK, SECRET, DATABASE].iter().any(|ours| name.starts_with(ours)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_owned(), source }
}
