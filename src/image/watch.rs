//! The watch over served images (promise 1): the kernel's notices, and a look at each file every
//! second.
//!
//! Invariants:
//! - The watch hangs on the open file, never on its path: a file put in its place is not mistaken
//!   for it.
//! - A block device is watched for writes through its node; writes below it (a mounted file system)
//!   show to nobody.
//! - Without notices (no inotify left, a network file system) the regular look still finds a
//!   change.
//! - Where a process or another host answers for a file, nobody waits for a look at it: the other
//!   images are watched all the same.
//! - An image is watched for as long as anybody else has it open, and not a second longer.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::Image;
use crate::limits::IMAGE_CHECK_EVERY;

/// A thread that watches images until this is dropped.
#[derive(Debug)]
pub struct Watch {
    /// A byte of it makes the thread look at what has come; its end ends the thread.
    bell: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    inbox: Arc<Inbox>,
}

/// Images on their way to the thread.
type Inbox = Mutex<Vec<Arc<Image>>>;

impl Watch {
    /// Starts to watch, nothing so far.
    ///
    /// # Errors
    /// No descriptor or thread to be had.
    pub fn start() -> io::Result<Self> {
        let (mut rung, bell) = io::pipe()?;
        let mut watcher = Watcher::new();
        let inbox = Arc::new(Inbox::default());
        let incoming = Arc::clone(&inbox);
        let thread = std::thread::Builder::new()
            .name("image-watch".to_owned())
            .spawn(move || watcher.run(&mut rung, &incoming))?;
        Ok(Self {
            bell: Some(bell),
            thread: Some(thread),
            inbox,
        })
    }

    /// Watches one more image. Its warm marks grow old from now on, too.
    pub fn add(&self, image: Arc<Image>) {
        lock(&self.inbox).push(image);
        if let Some(mut bell) = self.bell.as_ref() {
            // Were the bell broken, the thread would find it at its next regular look.
            let _ = bell.write(&[0]);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.bell.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(inbox: &Inbox) -> std::sync::MutexGuard<'_, Vec<Arc<Image>>> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image and the number its notices carry.
struct Watched {
    image: Weak<Image>,
    number: Option<i32>,
    /// For the log, when the image is gone.
    label: String,
}

struct Watcher {
    images: Vec<Watched>,
    notices: Option<OwnedFd>,
}

impl Watcher {
    fn new() -> Self {
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .inspect_err(|error| {
                tracing::warn!(
                    "no inotify ({error}): a changed image is noticed within \
                     {IMAGE_CHECK_EVERY:?} only"
                );
            })
            .ok();
        let images = Vec::new();
        Self { images, notices }
    }

    fn add(&mut self, image: &Arc<Image>) {
        self.images.push(Watched {
            number: self.notices.as_ref().and_then(|fd| add(fd, image)),
            image: Arc::downgrade(image),
            label: format!("image {} ({})", image.name, image.path.display()),
        });
        // What happened between the opening and now. A failed image tells so itself.
        let _ = image.look();
    }

    fn run(&mut self, bell: &mut PipeReader, inbox: &Inbox) {
        let mut next = Instant::now() + IMAGE_CHECK_EVERY;
        while !self.wait(bell, next.saturating_duration_since(Instant::now())) {
            for image in std::mem::take(&mut *lock(inbox)) {
                self.add(&image);
            }
            self.take_notices();
            if Instant::now() >= next {
                self.forget_closed();
                self.look();
                self.open().for_each(|image| image.tick());
                next = Instant::now() + IMAGE_CHECK_EVERY;
            }
        }
    }

    /// Waits for a notice, the end of `time` or the bell, and says whether that has ended.
    fn wait(&self, bell: &mut PipeReader, time: Duration) -> bool {
        let mut fds = vec![PollFd::new(&*bell, PollFlags::IN)];
        if let Some(notices) = &self.notices {
            fds.push(PollFd::new(notices, PollFlags::IN));
        }
        let time = Timespec::try_from(time).unwrap_or_default();
        // An interrupted wait is one that ended early.
        let waited = rustix::event::poll(&mut fds, Some(&time)).is_ok();
        let rung = waited && fds.first().is_some_and(|bell| !bell.revents().is_empty());
        rung && !matches!(bell.read(&mut [0; 64]), Ok(1..))
    }

    /// The images that somebody has open.
    fn open(&self) -> impl Iterator<Item = Arc<Image>> {
        self.images
            .iter()
            .filter_map(|watched| watched.image.upgrade())
    }

    /// Lets go of images that nobody has open any more.
    fn forget_closed(&mut self) {
        let closed = |watched: &mut Watched| watched.image.strong_count() == 0;
        let gone: Vec<_> = self.images.extract_if(.., closed).collect();
        for Watched { number, label, .. } in gone {
            tracing::info!("{label} is closed: nobody uses it any more");
            // One file may be served under two names.
            let shared = self.images.iter().any(|w| w.number == number);
            if let (Some(notices), Some(number), false) = (&self.notices, number, shared) {
                let _ = inotify::remove_watch(notices, number);
            }
        }
    }

    /// Works off every notice that has come, and waits for none.
    fn take_notices(&mut self) {
        let Some(notices) = self.notices.take() else {
            return;
        };
        let mut buf = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&notices, &mut buf);
        loop {
            match reader.next() {
                Ok(event) => self.take_notice(&notices, event.wd(), event.events()),
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.notices = Some(notices);
    }

    fn take_notice(&mut self, notices: &OwnedFd, number: i32, events: ReadFlags) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.look();
        }
        // One file may be served under two names.
        let watched = self.images.iter_mut().filter(|w| w.number == Some(number));
        for Watched { image, number, .. } in watched {
            let Some(image) = image.upgrade() else {
                continue;
            };
            if events.contains(ReadFlags::MODIFY) {
                image.saw_write();
            }
            if events.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF) {
                image.saw_rename();
            }
            // An `IN_ATTRIB` may be a `touch`, a `chmod` or the loss of the last name.
            if image.look().is_err() {
                // More notices would tell nothing new, and a busy writer sends many.
                if let Some(number) = number.take() {
                    let _ = inotify::remove_watch(notices, number);
                }
            }
        }
    }

    fn look(&self) {
        for image in self.open() {
            // A failed image has told so itself.
            let _ = image.look();
        }
    }
}

fn add(notices: &OwnedFd, image: &Image) -> Option<i32> {
    let events =
        WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    inotify::add_watch(notices, image.file.proc_path(), events)
        .inspect_err(|error| {
            tracing::warn!(
                "image {} gets no inotify watch ({error}): a change is noticed within \
                 {IMAGE_CHECK_EVERY:?} only",
                image.name
            );
        })
        .ok()
}

#[cfg(test)]
mod tests;
