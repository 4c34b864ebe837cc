//! Streamed answers: a stream task produces the items while the client reads them.

use futures::Stream;
use tokio::sync::mpsc;

use crate::app::App;

/// Items that are produced ahead of the client.
const AHEAD: usize = 4;

/// Starts a stream task, and returns the stream of its items. The task ends when it is done, when the client is gone, or when the API stops.
pub(crate) fn spawn_stream_task<T, P, F>(app: &App, producer: P) -> impl Stream<Item = T> + use<T, P, F>
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
