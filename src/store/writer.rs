//! The writer: one thread that makes records durable, so that the loop never waits for a disk.
//!
//! Writes of one file that wait together are one write of the newest bytes. Whoever asked is answered
//! when the bytes that were asked for, or newer ones, are durable.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::directory::{Directory, StoreError};
use super::layout::{Layout, Place};

/// The answer to one request: durable, or why not.
pub type Ack = oneshot::Receiver<Result<(), StoreError>>;

type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// What is to become of one file, and who waits for it.
#[derive(Debug, Default)]
struct Job {
    /// The newest bytes, `None` for a removal.
    bytes: Option<Vec<u8>>,
    waiters: Vec<Waiter>,
}

/// Jobs by file: bounded by the number of files, since newer bytes replace older ones.
type Jobs = BTreeMap<(Place, String), Job>;

#[derive(Debug, Default)]
struct Pending {
    files: Jobs,
    /// Answered when all that waited before is done.
    barriers: Vec<Waiter>,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while holding the lock leaves a queue that is still whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle of the writer thread. Dropped, it finishes what waits and ends.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(layout: Layout) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || run(&for_thread, &mut Disk::new(layout)))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Asks for a file to be replaced.
    pub fn write(&self, place: Place, name: &str, bytes: Vec<u8>) -> Ack {
        self.put(place, name, Some(bytes))
    }

    /// Asks for a file to be removed.
    pub fn remove(&self, place: Place, name: &str) -> Ack {
        self.put(place, name, None)
    }

    /// Answered when everything asked for before is done, whether it went well or not.
    pub fn barrier(&self) -> Ack {
        let (waiter, ack) = oneshot::channel();
        self.shared.lock().barriers.push(waiter);
        self.shared.wake.notify_one();
        ack
    }

    fn put(&self, place: Place, name: &str, bytes: Option<Vec<u8>>) -> Ack {
        let (waiter, ack) = oneshot::channel();
        let mut pending = self.shared.lock();
        let slot = pending.files.entry((place, name.to_owned())).or_default();
        slot.bytes = bytes;
        slot.waiters.push(waiter);
        drop(pending);
        self.shared.wake.notify_one();
        ack
    }
}

impl Writer {
    /// Leaves the thread to itself: whatever it hangs in, nobody waits for it.
    pub fn abandon(mut self) {
        drop(self.thread.take());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, disk: &mut Disk) {
    loop {
        let mut pending = shared.lock();
        while pending.files.is_empty() && pending.barriers.is_empty() && !pending.stop {
            pending = shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let files = std::mem::take(&mut pending.files);
        let barriers = std::mem::take(&mut pending.barriers);
        let stop = pending.stop;
        drop(pending);
        disk.perform(files);
        for barrier in barriers {
            let _ = barrier.send(Ok(()));
        }
        if stop && shared.lock().files.is_empty() {
            return;
        }
    }
}

struct Disk {
    layout: Layout,
    open: BTreeMap<Place, Directory>,
}

impl Disk {
    fn new(layout: Layout) -> Self {
        Self { layout, open: BTreeMap::new() }
    }

    fn perform(&mut self, jobs: Jobs) {
        let mut by_place: BTreeMap<Place, Vec<(String, Job)>> = BTreeMap::new();
        for ((place, name), job) in jobs {
            by_place.entry(place).or_default().push((name, job));
        }
        for (place, jobs) in by_place {
            let mut results = self.perform_in(place, &jobs);
            if results.iter().any(Result::is_err) {
                // The directory may have been moved, replaced or remounted: once more, from its path.
                self.open.remove(&place);
                results = self.perform_in(place, &jobs);
            }
            for ((_, job), result) in jobs.into_iter().zip(results) {
                for waiter in job.waiters {
                    // Whoever does not wait any more has gone on without the answer.
                    let _ = waiter.send(result.clone());
                }
            }
        }
    }

    fn perform_in(&mut self, place: Place, jobs: &[(String, Job)]) -> Vec<Result<(), StoreError>> {
        let directory = match self.directory(place) {
            Ok(directory) => directory,
            Err(error) => return jobs.iter().map(|_| Err(error.clone())).collect(),
        };
        let writes: Vec<(&str, &[u8])> = jobs
            .iter()
            .filter_map(|(name, job)| Some((name.as_str(), job.bytes.as_deref()?)))
            .collect();
        let mut written = directory.replace(&writes).into_iter();
        jobs.iter()
            .map(|(name, job)| match job.bytes {
                Some(_) => written.next().unwrap_or(Err(StoreError::Stopped)),
                None => directory.remove(name),
            })
            .collect()
    }

    fn directory(&mut self, place: Place) -> Result<&Directory, StoreError> {
        match self.open.entry(place) {
            std::collections::btree_map::Entry::Occupied(open) => Ok(open.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                Ok(vacant.insert(Directory::open_or_create(&self.layout.directory(place))?))
            }
        }
    }
}
