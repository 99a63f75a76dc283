//! CR 8.1.1, RFC 6665: whose third-party REGISTER came to this node, kept so that a start subscribes again (redb).
//!
//! ```text
//! SPOOL/registrations.redb   user -> (seconds since the Unix epoch until which it is registered, the REGISTER)
//! ```
//! A subscription is this node's own, and so is this file, whatever store is shared. It is opened with the first question: a node
//! with static registrations has none. Those that wait while one commit is written share the next.

use crate::limits::{REGISTRANTS_BATCH_MAX, REGISTRANTS_PAGE, SERVICES_TASKS_MAX};
use crate::shard::exchange::StoreFailure;
use crate::sip::header::name::Name;
use crate::sip::owner;
use crate::store::registrant::Registrant;
use crossbeam::channel::{Receiver, Sender, bounded};
use redb::{Database, TableDefinition, TableError};
use std::cell::RefCell;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

const USERS: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("users");

/// How often those whose time is over are looked for.
const SWEEP_S: u64 = 3600;

#[derive(Debug)]
enum Op {
    Put { registrant: Registrant, now_s: u64 },
    Remove { user: Box<str> },
    Page { core: u8, cores: u8, after: Option<Box<str>>, now_s: u64 },
}

type Done = Result<Vec<Registrant>, StoreFailure>;

struct Request {
    op: Op,
    done: oneshot::Sender<Done>,
}

#[derive(Debug)]
struct Running {
    requests: Sender<Request>,
    thread: JoinHandle<()>,
}

/// The file, and the thread that writes it. Dropping it waits for the last commit.
#[derive(Debug)]
pub struct Registrants {
    path: PathBuf,
    running: RefCell<Option<Running>>,
}

impl Registrants {
    /// Of this spool directory; nothing is opened yet. (A name of sixteen characters would be a message's, see `spool`.)
    pub fn new(spool: &Path) -> Self {
        Self { path: spool.join("registrations.redb"), running: RefCell::new(None) }
    }

    /// Keeps a user, in place of what was known of it. When this returns it is durable.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`].
    pub async fn put(&self, registrant: Registrant, now_s: u64) -> Result<(), StoreFailure> {
        self.ask(Op::Put { registrant, now_s }).await.map(drop)
    }

    /// Forgets a user, known or not.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`].
    pub async fn remove(&self, user: Box<str>) -> Result<(), StoreFailure> {
        self.ask(Op::Remove { user }).await.map(drop)
    }

    /// Users of one core that are still registered, in the order of their addresses from after that one on: at most
    /// [`REGISTRANTS_PAGE`], and fewer only where there are no more.
    ///
    /// # Errors
    /// [`StoreFailure::Unavailable`].
    pub async fn page(&self, core: u8, cores: u8, after: Option<Box<str>>, now_s: u64) -> Result<Vec<Registrant>, StoreFailure> {
        self.ask(Op::Page { core, cores, after, now_s }).await
    }

    async fn ask(&self, op: Op) -> Done {
        let (done, answer) = oneshot::channel();
        let requests = self.requests().map_err(|error| {
            tracing::error!(%error, "no thread for what is registered");
            StoreFailure::Unavailable
        })?;
        // As many may ask at once as there are places: it does not wait.
        requests.try_send(Request { op, done }).map_err(|_| StoreFailure::Unavailable)?;
        answer.await.unwrap_or(Err(StoreFailure::Unavailable))
    }

    fn requests(&self) -> io::Result<Sender<Request>> {
        let mut running = self.running.borrow_mut();
        if let Some(running) = &*running {
            return Ok(running.requests.clone());
        }
        let (requests, receiver) = bounded(2 * SERVICES_TASKS_MAX);
        let mut file = File { path: self.path.clone(), database: None, swept_s: 0 };
        let thread = std::thread::Builder::new().name("registrants".into()).spawn(move || file.serve(&receiver))?;
        *running = Some(Running { requests: requests.clone(), thread });
        Ok(requests)
    }
}

impl Drop for Registrants {
    fn drop(&mut self) {
        if let Some(Running { requests, thread }) = self.running.get_mut().take() {
            drop(requests);
            let _ = thread.join();
        }
    }
}

struct File {
    path: PathBuf,
    /// None: not opened yet, or it failed; the next question opens it.
    database: Option<Database>,
    swept_s: u64,
}

impl File {
    fn serve(&mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(requests.try_iter().take(REGISTRANTS_BATCH_MAX - 1)).collect();
            let (ops, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|request| (request.op, request.done)).unzip();
            let done = self.transact(&ops).unwrap_or_else(|error| {
                tracing::error!(path = %self.path.display(), %error, "what is registered cannot be kept");
                self.database = None;
                ops.iter().map(|_| Err(StoreFailure::Unavailable)).collect()
            });
            for (who, done) in waiting.into_iter().zip(done) {
                // Who asked is gone when the process ends.
                let _ = who.send(done);
            }
        }
    }

    /// Does all of these in one transaction.
    fn transact(&mut self, ops: &[Op]) -> Result<Vec<Done>, redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => Database::create(&self.path)?,
        };
        let database = self.database.insert(database);
        if let [Op::Page { core, cores, after, now_s }] = ops {
            return Ok(vec![Ok(page(database, (*core, *cores), after.as_deref(), *now_s)?)]);
        }
        let transaction = database.begin_write()?;
        {
            let mut users = transaction.open_table(USERS)?;
            for op in ops {
                match op {
                    Op::Put { registrant, now_s } => {
                        users.insert(&*registrant.user, (registrant.until_s, &*registrant.register))?;
                        if self.swept_s + SWEEP_S <= *now_s {
                            self.swept_s = *now_s;
                            users.retain(|_, (until_s, _)| until_s > *now_s)?;
                        }
                    }
                    Op::Remove { user } => drop(users.remove(&**user)?),
                    Op::Page { .. } => {}
                }
            }
        }
        transaction.commit()?;
        let answer = |op: &Op| match op {
            Op::Page { core, cores, after, now_s } => page(database, (*core, *cores), after.as_deref(), *now_s).map(Ok),
            Op::Put { .. } | Op::Remove { .. } => Ok(Ok(Vec::new())),
        };
        ops.iter().map(answer).collect()
    }
}

fn page(database: &Database, (core, cores): (u8, u8), after: Option<&str>, now_s: u64) -> Result<Vec<Registrant>, redb::Error> {
    use redb::ReadableDatabase as _;
    let transaction = database.begin_read()?;
    let users = match transaction.open_table(USERS) {
        Ok(users) => users,
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    for entry in users.range::<&str>((from, Bound::Unbounded))? {
        let (user, value) = entry?;
        let (until_s, register) = value.value();
        if until_s > now_s && core_of(register, cores) == core {
            found.push(Registrant { user: user.value().into(), until_s, register: register.into() });
            if found.len() >= REGISTRANTS_PAGE {
                break;
            }
        }
    }
    Ok(found)
}

/// The core that a REGISTER goes to, as `io::signalling::owner` has it.
fn core_of(register: &[u8], cores: u8) -> u8 {
    owner::header(register, Name::To).and_then(owner::user_in).map_or(0, |user| owner::core_of(user, cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registrant(number: u32, until_s: u64) -> Registrant {
        let user = format!("sip:user{number:04}@example.net");
        let register = format!("REGISTER sip:pf SIP/2.0\r\nTo: <{user}>\r\n\r\n").into_bytes();
        Registrant { user: user.into(), until_s, register: register.into() }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn who_is_registered_is_known_after_a_start() {
        let spool = tempfile::tempdir().unwrap();
        let users = REGISTRANTS_PAGE as u32 + 10;
        let kept = Registrants::new(spool.path());
        run(async {
            assert_eq!(kept.page(0, 1, None, 0).await, Ok(Vec::new()));
            for number in 0..users {
                kept.put(registrant(number, 100), 1).await.unwrap();
            }
            kept.remove(registrant(3, 0).user).await.unwrap();
            kept.put(registrant(4, 10), 1).await.unwrap();
        });
        drop(kept);
        let kept = Registrants::new(spool.path());
        let first = run(kept.page(0, 1, None, 10)).unwrap();
        assert_eq!(first.len(), REGISTRANTS_PAGE);
        assert_eq!(first[3], registrant(5, 100), "3 is gone, and the time of 4 is over");
        let last = first.last().map(|registrant| registrant.user.clone());
        assert_eq!(run(kept.page(0, 1, last, 10)).unwrap().len(), 8);
        let of_cores: usize = (0..3).map(|core| run(kept.page(core, 3, None, 10)).unwrap().len()).sum();
        assert_eq!(of_cores, users as usize - 2, "each has one core");
    }

    #[test]
    fn those_whose_time_is_over_leave_the_file() {
        let spool = tempfile::tempdir().unwrap();
        let kept = Registrants::new(spool.path());
        run(async {
            kept.put(registrant(1, 100), 1).await.unwrap();
            kept.put(registrant(2, 90_000), SWEEP_S + 1).await.unwrap();
            let left = kept.page(0, 1, None, 0).await.unwrap();
            assert_eq!(left, [registrant(2, 90_000)]);
        });
    }

    #[test]
    fn a_file_that_cannot_be_written_refuses() {
        let kept = Registrants::new(Path::new("/dev/null"));
        assert_eq!(run(kept.put(registrant(1, 100), 1)), Err(StoreFailure::Unavailable));
    }
}
