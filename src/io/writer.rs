//! Writes to a file whose file system can't tell whether a write would have to wait: a thread
//! beside the shard makes them.
//!
//! ext4 answers every buffered write that must not wait by EOPNOTSUPP. The ring then has a worker
//! of the kernel for each, and to wake that costs several times what the write itself does. Here
//! the writes that a turn of the shard asks for go to one thread together, and come back together.
//!
//! Invariants:
//! - What a write uses, its buffer and its file, is in `kept` from before the thread knows of it
//!   until the thread is done with it, also where its future was dropped; and where the ring ends
//!   first, until the thread has ended.
//! - The thread touches nothing but the memory and the descriptor of its jobs. It takes no lock
//!   while it writes.
//! - Writes are begun in the order in which they were asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::buffer::Buffer;
use super::ring;

/// As many writes come back together, at most: what was written first must not wait for all.
const TOGETHER: usize = 16;

/// Writes `range` of `buffer`, which is inside, from byte `offset` of `file` on, as far as one call
/// of the kernel does.
///
/// # Panics
/// Where no ring runs on this thread.
pub(super) async fn write<F>(
    file: F,
    mut buffer: Buffer,
    range: Range<usize>,
    offset: u64,
) -> (io::Result<usize>, (F, Buffer))
where
    F: AsFd + Unpin + 'static,
{
    let part = buffer.as_mut_slice().get_mut(range).unwrap_or_default();
    let job = Job {
        number: 0,
        target: file.as_fd().as_raw_fd(),
        start: part.as_ptr(),
        length: part.len(),
        offset,
    };
    let (answer, ended) = oneshot::channel();
    let owned = (file, buffer);
    let give = move |result| {
        // Whose future was dropped needs none of it.
        drop(answer.send((result, owned)));
    };
    ask(job, Box::new(give));
    match ended.await {
        Ok(answer) => answer,
        // Only the end of the ring drops an answer, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

/// Ends the thread of this one's ring, where there is one. What it is writing is waited for, the
/// rest is given up.
pub(super) fn end() {
    // The runtime has ended: nobody asks any more.
    drop(WRITER.take());
}

/// One write, as the thread sees it.
struct Job {
    number: u64,
    target: RawFd,
    start: *const u8,
    length: usize,
    offset: u64,
}

// SAFETY: the memory at `start` and the descriptor are owned by the entry of `kept` with this
// number, which nobody touches until the thread has said that it is done.
unsafe impl Send for Job {}

impl Job {
    fn run(&self) -> Done {
        // SAFETY: `kept` has what owns the descriptor, so it is open.
        let target = unsafe { BorrowedFd::borrow_raw(self.target) };
        // SAFETY: `kept` has the buffer that these bytes are of, and nobody changes them meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts(self.start, self.length) };
        let result = rustix::io::pwrite(target, bytes, self.offset);
        (self.number, result.map_err(io::Error::from))
    }
}

type Done = (u64, io::Result<usize>);

/// Takes a result, and gives up what its write used.
type Keep = Box<dyn FnOnce(io::Result<usize>)>;

/// What shard and thread share.
#[derive(Default)]
struct Queue {
    inside: Mutex<Inside>,
    wake: Condvar,
}

#[derive(Default)]
struct Inside {
    jobs: Vec<Job>,
    is_over: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        // Nothing that could panic is done under the lock.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for jobs; none at the end.
    fn next(&self) -> Vec<Job> {
        let waits = |inside: &mut Inside| inside.jobs.is_empty() && !inside.is_over;
        let inside = self.wake.wait_while(self.lock(), waits);
        let mut inside = inside.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inside.jobs)
    }
}

/// The shard's half.
struct Writer {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    kept: HashMap<u64, Keep>,
    next: u64,
    /// Asked for in this turn of the shard, and not known to the thread.
    gathered: Vec<Job>,
}

impl Writer {
    fn start() -> Self {
        let queue = Arc::new(Queue::default());
        let (done, came) = unbounded_channel();
        let theirs = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || work(&theirs, &done));
        drop(ring::spawn(give_back(came)));
        Self {
            queue,
            // Without a thread the shard does it, and waits.
            thread: thread.ok(),
            kept: HashMap::new(),
            next: 0,
            gathered: Vec::new(),
        }
    }

    /// Whether this job is the first of a turn.
    fn add(&mut self, mut job: Job, keep: Keep) -> bool {
        job.number = self.next;
        self.next += 1;
        self.kept.insert(job.number, keep);
        self.gathered.push(job);
        self.gathered.len() == 1
    }

    /// Lets the thread know of what was asked for; what it could not be told is done here.
    fn hand_over(&mut self) -> Vec<Done> {
        let mut gathered = std::mem::take(&mut self.gathered);
        if self.thread.is_none() {
            return gathered.iter().map(Job::run).collect();
        }
        self.queue.lock().jobs.append(&mut gathered);
        self.queue.wake.notify_one();
        Vec::new()
    }
}

impl Writer {
    fn end_thread(&mut self) {
        self.queue.lock().is_over = true;
        self.queue.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It does not panic; were it to, it has ended all the same.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end_thread();
    }
}

/// Tells the thread of a job once the tasks that are ready now have had their turn, and perhaps
/// asked for more.
fn ask(job: Job, keep: Keep) {
    let is_first =
        WRITER.with_borrow_mut(|writer| writer.get_or_insert_with(Writer::start).add(job, keep));
    if is_first {
        drop(ring::spawn(async {
            let hand_over = |writer: &mut Option<Writer>| writer.as_mut().map(Writer::hand_over);
            give(WRITER.with_borrow_mut(hand_over).unwrap_or_default());
        }));
    }
}

/// What the thread does, until the ring of its shard ends.
fn work(queue: &Queue, done: &UnboundedSender<Vec<Done>>) {
    loop {
        let jobs = queue.next();
        if jobs.is_empty() {
            return;
        }
        for some in jobs.chunks(TOGETHER) {
            if done.send(some.iter().map(Job::run).collect()).is_err() {
                return;
            }
        }
    }
}

async fn give_back(mut came: UnboundedReceiver<Vec<Done>>) {
    while let Some(done) = came.recv().await {
        give(done);
        // However fast the thread is: the ring gets its turn.
        ring::yield_now().await;
    }
}

fn give(done: Vec<Done>) {
    for (number, result) in done {
        let keep = WRITER.with_borrow_mut(|writer| writer.as_mut()?.kept.remove(&number));
        if let Some(keep) = keep {
            keep(result);
        }
    }
}

thread_local! {
    static WRITER: RefCell<Option<Writer>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::rc::Rc;
    use std::task::Poll;

    use super::*;
    use crate::io::{Pool, run, yield_now};

    fn buffer(pool: &Pool, byte: u8) -> Buffer {
        let mut buffer = pool.take(4096).unwrap();
        buffer.as_mut_slice().fill(byte);
        buffer
    }

    /// Has a future begin, and no more.
    async fn begin(future: &mut (impl Future + Unpin)) {
        std::future::poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut *future).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    #[test]
    fn it_writes_the_part_to_its_place() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let whole = buffer(&Pool::new(), 7);
        let (result, _) = run(write(file.clone(), whole, 10..20, 3)).unwrap();
        assert_eq!(result.unwrap(), 10);
        let mut found = [9; 13];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn what_the_kernel_says_comes_back() {
        let full = Rc::new(File::options().write(true).open("/dev/full").unwrap());
        let (result, _) = run(write(full, buffer(&Pool::new(), 1), 0..10, 0)).unwrap();
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn each_of_many_writes_gets_its_own_answer() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let pool = Pool::new();
        run(async {
            let lengths = (1..=300).map(|length| {
                let one = write(
                    file.clone(),
                    buffer(&pool, 1),
                    0..length,
                    4096 * length as u64,
                );
                async move { (length, one.await.0.unwrap()) }
            });
            for (length, written) in futures_of(lengths).await {
                assert_eq!(written, length);
            }
        })
        .unwrap();
        assert_eq!(file.metadata().unwrap().len(), 300 * 4096 + 300);
    }

    async fn futures_of<T: 'static>(
        futures: impl Iterator<Item = impl Future<Output = T> + 'static>,
    ) -> Vec<T> {
        let tasks: Vec<_> = futures.map(ring::spawn).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.push(task.await.unwrap());
        }
        all
    }

    #[test]
    fn a_dropped_write_gives_buffer_and_file_up_when_it_is_done() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let pool = Pool::new();
        run(async {
            let mut pending = Box::pin(write(file.clone(), buffer(&pool, 5), 0..4096, 0));
            begin(&mut pending).await;
            drop(pending);
            assert_eq!((pool.idle_bytes(), Rc::strong_count(&file)), (0, 2));
            while pool.idle_bytes() == 0 {
                yield_now().await;
            }
            assert_eq!(Rc::strong_count(&file), 1);
        })
        .unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4096);
    }

    #[test]
    fn a_ring_that_ends_gives_up_what_was_being_written() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let pool = Pool::new();
        run(async {
            drop(ring::spawn(write(
                file.clone(),
                buffer(&pool, 5),
                0..4096,
                0,
            )));
            yield_now().await;
        })
        .unwrap();
        assert_eq!((pool.idle_bytes(), Rc::strong_count(&file)), (4096, 1));
    }

    #[test]
    fn a_ring_after_another_has_a_thread_of_its_own() {
        for byte in [1, 2] {
            let file = Rc::new(tempfile::tempfile().unwrap());
            let written = run(write(file, buffer(&Pool::new(), byte), 0..4096, 0)).unwrap();
            assert_eq!(written.0.unwrap(), 4096);
        }
    }

    #[test]
    fn without_a_thread_the_shard_writes() {
        let file = Rc::new(tempfile::tempfile().unwrap());
        let result = run(async {
            let mut writer = Writer::start();
            writer.end_thread();
            WRITER.set(Some(writer));
            write(file.clone(), buffer(&Pool::new(), 5), 0..4096, 0)
                .await
                .0
        });
        assert_eq!(result.unwrap().unwrap(), 4096);
    }
}
