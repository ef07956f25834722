//! The CPU threads that run guests: never workers of the async runtime, so that a busy guest cannot hold a timer or a connection.

use std::any::Any;
use std::collections::VecDeque;
use std::iter::Enumerate;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Error;
use super::instance::Instances;

/// How long a thread stays with one batch while others wait.
const SLICE: Duration = Duration::from_millis(5);
/// Stack of a thread: the guest's, several times over.
pub(super) const STACK_BYTES: usize = 4 << 20;

type Job = Box<dyn FnOnce(&mut Instances) + Send>;

/// Jobs that wait for a thread.
#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    arrived: Condvar,
}

#[derive(Default)]
struct LineState {
    jobs: VecDeque<Job>,
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    fn push(&self, job: Job) {
        lock(&self.state).jobs.push_back(job);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Job> {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn others_wait(&self) -> bool {
        !lock(&self.state).jobs.is_empty()
    }
}

/// The threads.
pub(super) struct Threads {
    line: Arc<Line>,
    handles: Vec<JoinHandle<()>>,
}

type Outcome<T> = Result<T, Box<dyn Any + Send>>;

/// The tasks of one `run`, shared by the threads that work on it.
struct Batch<T, F> {
    tasks: Mutex<Enumerate<IntoIter<F>>>,
    done: UnboundedSender<Vec<(usize, Outcome<T>)>>,
    line: Arc<Line>,
}

impl Threads {
    /// Starts `count` threads, each with at most `instances` warm instances.
    pub(super) fn start(count: usize, instances: usize) -> Result<Self, Error> {
        let line = Arc::new(Line::default());
        let mut handles = Vec::with_capacity(count);
        for number in 0..count {
            let line = line.clone();
            let work = move || {
                let mut own = Instances::new(instances);
                while let Some(job) = line.pop() {
                    job(&mut own);
                }
            };
            let thread = std::thread::Builder::new().name(format!("tolk-cpu-{number}")).stack_size(STACK_BYTES).spawn(work);
            handles.push(thread.map_err(|error| Error::Engine(format!("start a CPU thread: {error}")))?);
        }
        Ok(Self { line, handles })
    }

    pub(super) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Runs tasks; a panic of one of them goes on here once it is known.
    pub(super) async fn run<T, F>(&self, tasks: Vec<F>) -> Vec<T>
    where
        F: FnOnce(&mut Instances) -> T + Send + 'static,
        T: Send + 'static,
    {
        let count = tasks.len();
        let (done, results) = unbounded_channel();
        let batch = Arc::new(Batch { tasks: Mutex::new(tasks.into_iter().enumerate()), done, line: self.line.clone() });
        for _ in 0..self.count().min(count) {
            let batch = batch.clone();
            self.line.push(Box::new(move |instances| batch.work(instances)));
        }
        drop(batch);
        gather(count, results).await
    }
}

async fn gather<T>(count: usize, mut results: UnboundedReceiver<Vec<(usize, Outcome<T>)>>) -> Vec<T> {
    let mut slots: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    while let Some(some) = results.recv().await {
        for (index, result) in some {
            match result {
                Ok(result) => slots[index] = Some(result),
                Err(panic) => resume_unwind(panic),
            }
        }
    }
    slots.into_iter().map(|slot| slot.expect("every task is run before the channel closes")).collect()
}

impl<T, F> Batch<T, F>
where
    F: FnOnce(&mut Instances) -> T + Send + 'static,
    T: Send + 'static,
{
    fn work(self: Arc<Self>, instances: &mut Instances) {
        let started = Instant::now();
        let mut results = Vec::new();
        // Nobody waits for the results of a batch that was given up.
        while !self.done.is_closed() {
            let next = lock(&self.tasks).next();
            let Some((index, task)) = next else { break };
            let result = catch_unwind(AssertUnwindSafe(|| task(instances)));
            if result.is_err() {
                // What the task had in hand may be half done.
                instances.clear();
            }
            results.push((index, result));
            if started.elapsed() > SLICE && self.line.others_wait() {
                let line = self.line.clone();
                let _ = self.done.send(results);
                line.push(Box::new(move |instances| self.work(instances)));
                return;
            }
        }
        let _ = self.done.send(results);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        lock(&self.line.state).closed = true;
        self.line.arrived.notify_all();
        let own = std::thread::current().id();
        for handle in self.handles.drain(..).filter(|handle| handle.thread().id() != own) {
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Task<T> = Box<dyn FnOnce(&mut Instances) -> T + Send>;

    #[tokio::test]
    async fn results_come_in_the_order_of_the_tasks() {
        let threads = Threads::start(2, 1).unwrap();
        let tasks: Vec<_> = (0..1_000_u32).map(|n| move |_: &mut Instances| n * 2).collect();
        let expected: Vec<u32> = (0..1_000).map(|n| n * 2).collect();
        assert_eq!(threads.run(tasks).await, expected);
        assert_eq!(threads.run(Vec::<Task<u32>>::new()).await, Vec::<u32>::new());
    }

    #[tokio::test]
    async fn a_panic_reaches_the_caller_and_spares_the_thread() {
        let threads = Arc::new(Threads::start(1, 1).unwrap());
        let other = threads.clone();
        let failing: Vec<Task<u32>> = vec![Box::new(|_| 1), Box::new(|_| panic!("of its own"))];
        let panicked = tokio::spawn(async move { other.run(failing).await }).await.unwrap_err();
        assert!(panicked.is_panic());
        let fine: Vec<Task<u32>> = vec![Box::new(|_| 7)];
        assert_eq!(threads.run(fine).await, [7]);
    }

    #[tokio::test]
    async fn a_long_batch_lets_others_in() {
        let threads = Arc::new(Threads::start(1, 1).unwrap());
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (started, mut start) = unbounded_channel();
        let gate = Arc::new(Mutex::new(gate));
        let long: Vec<Task<bool>> = (0..50)
            .map(|n| {
                let (gate, started) = (gate.clone(), started.clone());
                let task: Task<bool> = Box::new(move |_| {
                    let _ = started.send(n);
                    // The last task waits for the other batch, which can only run if this one makes way.
                    let until = Instant::now() + SLICE;
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    n < 49 || lock(&gate).recv_timeout(Duration::from_secs(30)).is_ok()
                });
                task
            })
            .collect();
        let other = threads.clone();
        let long = tokio::spawn(async move { other.run(long).await });
        assert_eq!(start.recv().await, Some(0));
        let short: Vec<Task<bool>> = vec![Box::new(move |_| release.send(()).is_ok())];
        assert_eq!(threads.run(short).await, [true]);
        assert!(long.await.unwrap().into_iter().all(|done| done));
    }
}
