//! An export is a snapshot: whatever is pulled, pushed, deleted, collected and evicted meanwhile, what it carries is whole (B4).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::support::image::{Flavour, Packing};

/// Clients that pull or push all the time.
const CLIENTS: u64 = 16;
/// Exports in the middle of that.
const EXPORTS: usize = 4;

fn app(seed: u64) -> Image {
    let layer = |seed| image::noise_layer(Packing::Plain, seed, 600 * KIB);
    image::image(Flavour::Oci, "amd64", &[layer(seed), layer(seed + 1)])
}

/// Whether an image could be pushed before somebody collected its blobs.
async fn try_push(client: &Client, name: &str, image: &Image) -> bool {
    for blob in &image.blobs {
        let put = client.push_blob(name, blob).await;
        assert_eq!(put.status.as_u16(), 201, "{put:?}");
    }
    // Without any grace a collection may be quicker than this.
    let put = client.put_manifest(name, "1", &image.root).await;
    assert!([201, 400].contains(&put.status.as_u16()), "{put:?}");
    put.status.as_u16() == 201
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_export_amid_pulls_pushes_collection_and_eviction_is_whole() {
    let upstream = Upstream::start().await;
    let apps: Vec<Image> = (0..3).map(|n| app(100 * n)).collect();
    for (number, image) in apps.iter().enumerate() {
        upstream.hold(&format!("team/app{number}"), "1", image);
    }
    let crowd: Vec<_> = (1000..1016)
        .map(|seed| image::blob(seed, 512 * KIB))
        .collect();
    crowd.iter().for_each(|blob| upstream.hold_blob(blob));
    let more = "[storage]\nmax_size = \"8MiB\"\nmin_free = \"1MiB\"\ncollect_grace = \"0s\"\n[local.dev-local]\n";
    let here = Mirror::with(&[Remote::hub(&upstream.url())], more).await;
    let own = app(5000);
    let (stop, pulls, pushes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let (client, stop, crowd) = (here.client(), Arc::clone(&stop), crowd.clone());
        let (pulls, pushes) = (Arc::clone(&pulls), Arc::clone(&pushes));
        clients.spawn(async move {
            let mut round = number;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                if number < 4 {
                    // What is pushed here is deleted again, and collected.
                    let image = image::small(Flavour::Oci, 10_000 * (number + 1) + round);
                    let name = format!("dev-local/crowd{number}");
                    if !try_push(&client, &name, &image).await {
                        continue;
                    }
                    let path = format!("/v2/{name}/manifests/1");
                    assert!(client.delete(&path).await.status.is_success());
                    pushes.fetch_add(1, Ordering::Relaxed);
                } else {
                    let blob = &crowd[usize::try_from(round).unwrap() % crowd.len()];
                    let answer = client.blob("team/crowd", &blob.digest).await;
                    assert!(answer.is(&blob.bytes), "{}", answer.status);
                    pulls.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let stick = Stick::new();
    for round in 0..EXPORTS {
        let path = stick.at(&format!("{round}.tar"));
        while !try_push(&here.client(), "dev-local/team/own", &own).await {}
        let child = command(
            &here,
            &[
                "export",
                "--json",
                "-o",
                &path,
                "team/app0:1",
                "team/app1:1",
                "team/app2:1",
                "dev-local/team/own:1",
            ],
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
        let exported = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        while !exported.is_finished() {
            let collected = here.client();
            let collected = collected
                .send(http::Method::POST, "/admin/gc?grace=0", &[])
                .await;
            assert!(collected.status.is_success(), "{:?}", collected.body);
            if Path::new(&format!("{path}.partial")).exists() {
                // Its table is made: from here on the image may go.
                here.client()
                    .delete("/v2/dev-local/team/own/manifests/1")
                    .await;
            }
        }
        let output = exported.await.unwrap();
        assert!(output.status.success(), "{output:?}");
        // What is written is re-read, and taken in whole.
        let fresh = offline_with("[local.dev-local]\n").await;
        let would = told(&fresh, &["import", "--dry-run", "--json", &path]);
        let images = would["images"].as_array().unwrap();
        assert_eq!(images.len(), 4);
        assert!(
            images
                .iter()
                .all(|one| one["waitsFor"] == serde_json::json!([]))
        );
        said(&fresh, &["import", &path]);
        for (number, image) in apps.iter().enumerate() {
            assert_pulls(&fresh.client(), &format!("team/app{number}"), "1", image).await;
        }
        assert_pulls(&fresh.client(), "dev-local/team/own", "1", &own).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert!(
        here.metric("roadstead_evictions_total") > 0.0,
        "nothing was evicted"
    );
    assert!(pulls.load(Ordering::Relaxed) > 50 && pushes.load(Ordering::Relaxed) > 4);
    let all: Vec<_> = (0..EXPORTS)
        .map(|n| stick.read(&format!("{n}.tar")))
        .collect();
    assert!(
        all.iter().all(|one| *one == all[0]),
        "the same images, the same bytes"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_export_holds_stays_while_a_slow_reader_takes_it() {
    let upstream = Upstream::start().await;
    let app = app(1);
    upstream.hold("team/app", "1", &app);
    let more = "[storage]\nmax_size = \"4MiB\"\nmin_free = \"1MiB\"\n";
    let here = Mirror::with(&[Remote::hub(&upstream.url())], more).await;
    let mut child = command(&here, &["export", "-o", "-", "team/app:1"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = vec![0; 512];
    stdout.read_exact(&mut bytes).unwrap();
    // Everything else that the cache had goes, and what is being read does not.
    for seed in 500..510 {
        let blob = image::blob(seed, MIB);
        upstream.hold_blob(&blob);
        let answer = here.client().blob("team/other", &blob.digest).await;
        assert!(answer.is(&blob.bytes));
    }
    assert!(here.metric("roadstead_evictions_total") > 0.0);
    stdout.read_to_end(&mut bytes).unwrap();
    assert!(child.wait().unwrap().success());
    let stick = Stick::new();
    std::fs::write(stick.at("bundle.tar"), bytes).unwrap();
    let fresh = offline().await;
    said(&fresh, &["import", &stick.at("bundle.tar")]);
    assert_pulls(&fresh.client(), "team/app", "1", &app).await;
}
