//! Answers that are made while they are sent: by a task with an owner, which waits for whoever reads slowly.

use futures::Stream;
use tokio::sync::mpsc;

use crate::app::App;

/// Pieces that are ready before the reader asks for them.
const AHEAD: usize = 4;

/// Runs a producer, and returns what it produces. It ends when it is done, when nobody reads any more, or with the API.
pub(crate) fn produce<T, P, F>(app: &App, producer: P) -> impl Stream<Item = T> + use<T, P, F>
where
    T: Send + 'static,
    P: FnOnce(mpsc::Sender<T>) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(AHEAD);
    let (gone, stop) = (sender.clone(), app.stop.clone());
    let work = producer(sender);
    app.tasks.spawn(async move {
        tokio::select! {
            () = gone.closed() => {}
            () = stop.cancelled() => {}
            () = work => {}
        }
    });
    futures::stream::poll_fn(move |context| receiver.poll_recv(context))
}
