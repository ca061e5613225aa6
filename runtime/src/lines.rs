//! Writes to standard error from a thread of its own, so that logging never blocks when the reader of the pipe is slow.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use metrics::counter;

use crate::metrics::LOG_LINES_DROPPED;

/// At most this much waits to be written; further lines are dropped and counted.
const MOST_BYTES: usize = 1024 * 1024;
/// At the end of the process the waiting lines have this long to be written.
const AT_THE_END: Duration = Duration::from_secs(1);

/// Lines that a thread of their own writes, in their order.
#[derive(Clone, Default)]
pub struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a line is on its way.
    writing: bool,
}

impl Lines {
    /// Returns the lines of standard error; the first call begins their thread.
    ///
    /// # Errors
    /// When the thread cannot be begun.
    pub fn stderr() -> io::Result<Self> {
        static STDERR: OnceLock<Lines> = OnceLock::new();
        if let Some(lines) = STDERR.get() {
            return Ok(lines.clone());
        }
        // A handle of its own: `std`'s has a lock, and a blocked write would keep it.
        let to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let lines = Self::begin(to)?;
        Ok(STDERR.get_or_init(|| lines).clone())
    }

    fn begin(to: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Self::default();
        let shared = lines.clone();
        std::thread::Builder::new().name("log-lines".to_owned()).spawn(move || shared.write_all_to(to))?;
        Ok(lines)
    }

    /// Writes line after line; where nobody can be told any more, for want of a reader, the line is lost.
    fn write_all_to(&self, mut to: impl Write) {
        let mut queue = self.lock();
        loop {
            let Some(line) = queue.lines.pop_front() else {
                queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.writing = true;
            drop(queue);
            let _ = to.write_all(&line);
            queue = self.lock();
            queue.bytes -= line.len();
            queue.writing = false;
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, for a second at most.
    pub fn finish(&self) {
        let waits = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        let _ = self.0.changed.wait_timeout_while(self.lock(), AT_THE_END, waits);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.lock();
        if queue.bytes + line.len() > MOST_BYTES {
            drop(queue);
            counter!(LOG_LINES_DROPPED).increment(1);
        } else {
            queue.bytes += line.len();
            queue.lines.push_back(line.to_vec());
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Writes one line each time it may.
    struct Gate(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_nobodys_time() {
        let (open, gate) = channel();
        let (sent, written) = channel();
        let mut lines = Lines::begin(Gate(gate, sent)).unwrap();
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            for number in 0..1_100_u32 {
                let mut line = vec![b' '; 1023];
                line.splice(..0, [u8::try_from(number % 100).unwrap()]);
                lines.write_all(&line).unwrap();
            }
        });
        assert!(shown.render().contains("windfall_log_lines_dropped_total 76"), "{}", shown.render());
        drop(open);
        let written: Vec<u8> = (0..1_024).map(|_| written.recv().unwrap()[0]).collect();
        assert!(written.iter().enumerate().all(|(at, line)| usize::from(*line) == at % 100), "in their order");
        lines.finish();
        assert_eq!(lines.lock().bytes, 0);
    }
}
