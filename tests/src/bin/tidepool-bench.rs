//! `./tidepool bench NAME`: measured figures, one JSON line each.

use clap::{Parser, Subcommand};
use tidepool_tests::bench::{claim, first_reply, image, links, pool, proxy, reload, routes, store};

/// Measures Tidepool on this machine; prints one JSON line a figure.
#[derive(Debug, Parser)]
#[command(name = "tidepool bench", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Create call until the own host name answers as the owner
    Claim(claim::Arguments),
    /// Configuration patch until applied
    Reload(reload::Arguments),
    /// The first reply of a claimed gateway, beyond the model's own time
    FirstReply(first_reply::Arguments),
    /// A server of the image: size, boot to enrolled and to warm, memory and idle CPU
    Image(image::Arguments),
    /// Ten thousand agents' links on one coordinator: memory, CPU, and a restart
    Links(links::Arguments),
    /// Claims at the store, on both databases: how many a second, how long one takes, none twice
    Store(store::Arguments),
    /// Customers who find a warm server and what idle ones cost, against a fixed pool of two
    Pool(pool::Arguments),
    /// What the model proxy adds, in time, CPU and memory, to a fast upstream
    Proxy(proxy::Arguments),
    /// From the commit of a route to the first right answer, through Traefik and through the edge
    Routes(routes::Arguments),
    /// The upstream of the `proxy` bench, in a process of its own
    #[command(hide = true)]
    ProxyUpstream(proxy::UpstreamArguments),
    /// What the `proxy` bench compares a streamed event with
    #[command(hide = true)]
    ProxyCopier(proxy::CopierArguments),
    /// The coordinator's end of the `links` bench, in a process of its own
    #[command(hide = true)]
    LinksServer(links::ServerArguments),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Claim(arguments) => claim::run(arguments).await,
        Bench::Reload(arguments) => reload::run(arguments).await,
        Bench::FirstReply(arguments) => first_reply::run(arguments).await,
        Bench::Image(arguments) => image::run(arguments).await,
        Bench::Links(arguments) => links::run(arguments).await,
        Bench::Store(arguments) => store::run(arguments).await,
        Bench::Pool(arguments) => pool::run(&arguments).map_err(Into::into),
        Bench::Proxy(arguments) => proxy::run(arguments).await,
        Bench::Routes(arguments) => routes::run(arguments).await,
        Bench::ProxyUpstream(arguments) => proxy::serve(arguments).await,
        Bench::ProxyCopier(arguments) => proxy::copy(arguments).await,
        Bench::LinksServer(arguments) => links::serve(arguments).await,
    }
}
