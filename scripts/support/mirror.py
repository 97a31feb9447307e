"""A real mirror in a process of its own, and images to push to it."""
import hashlib, http.client, json, os, pathlib, random, signal, socket, subprocess, tempfile, time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = pathlib.Path(os.environ.get("ROADSTEAD_BINARY", TOP / "target/release/roadstead"))


def build():
    """Builds the release, unless another binary is named by ROADSTEAD_BINARY."""
    if "ROADSTEAD_BINARY" not in os.environ:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=TOP, check=True)


def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Mirror:
    """A mirror with the local repositories `dev-local` and `prod-local`, and its data below `root`."""

    def __init__(self, root, more=""):
        self.data, self.port = root / "data", port()
        self.config = pathlib.Path(tempfile.mkstemp(suffix=".toml")[1])
        self.config.write_text(f'[storage]\nmin_free = "1MiB"\n{more}\n[local.dev-local]\n[local.prod-local]\n')
        self.log = open(self.config.with_suffix(".log"), "a")
        self.child = None

    def command(self):
        return [str(BINARY), "serve", "-c", str(self.config), "--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]

    def start(self):
        self.child = subprocess.Popen(self.command(), stderr=self.log, stdout=subprocess.DEVNULL)
        self.wait()

    def wait(self):
        begun = time.monotonic()
        while time.monotonic() - begun < 20:
            try:
                if self.ask("GET", "/v2/")[0] == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise SystemExit(f"it does not start again; see {self.log.name}")

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        if self.child.wait(40) != 0:
            raise SystemExit(f"it does not stop cleanly; see {self.log.name}")

    def forget(self):
        """Removes what it left outside its data."""
        self.log.close()
        self.config.unlink()
        self.config.with_suffix(".log").unlink()

    def ask(self, method, path, body=None, headers={}):
        """Status and body; OSError where there was no whole answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(error)
        finally:
            connection.close()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def image(number, size):
    """Two blobs and the manifest of an image; the same for the same number."""
    layer = random.Random(number).randbytes(size)
    config = json.dumps({"architecture": "amd64", "os": "linux", "n": number}).encode()
    describe = lambda kind, data: {"mediaType": kind, "digest": digest(data), "size": len(data)}
    manifest = json.dumps({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("application/vnd.oci.image.config.v1+json", config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", layer)],
    }).encode()
    return [config, layer], manifest


def promote(mirror, name, tag):
    """Moves a tag from `dev-local` to `prod-local`; the status."""
    body = json.dumps({"targetRepo": "prod-local", "dockerRepository": name, "tag": tag})
    return mirror.ask("POST", "/api/docker/dev-local/v2/promote", body)[0]


def push(mirror, name, tag, built):
    """True where every answer was 201, False where one was an error; OSError where the mirror is gone."""
    blobs, manifest = built
    for blob in blobs:
        if mirror.ask("POST", f"/v2/dev-local/{name}/blobs/uploads/?digest={digest(blob)}", blob)[0] != 201:
            return False
    return mirror.ask("PUT", f"/v2/dev-local/{name}/manifests/{tag}", manifest)[0] == 201


def wrong(mirror, name, tag, built, key="dev-local"):
    """What of an image is not there, byte for byte."""
    blobs, manifest = built
    missing = [] if mirror.ask("GET", f"/v2/{key}/{name}/manifests/{tag}") == (200, manifest) else ["manifest"]
    for blob in blobs:
        if mirror.ask("GET", f"/v2/{key}/{name}/blobs/{digest(blob)}") != (200, blob):
            missing.append(digest(blob))
    return missing
