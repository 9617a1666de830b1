"use strict";

// The steps that the query names are done one after the other with the server that it
// names. Each has a short text as its result, which is shown, and at the end all are
// sent to /report of the page's own origin, which may answer with the next page.
//
//	server  https://HOST:PORT
//	hash    SHA-256 of the server's certificate in hexadecimal, for WebTransport
//	origin  what the server is to allow as origin of a page
//	steps   names, with commas

const query = new URLSearchParams(location.search);
const server = query.get("server");
const allow = query.get("origin") ? "?origin=" + encodeURIComponent(query.get("origin")) : "";

function pattern(n) {
	const b = new Uint8Array(n);
	for (let i = 0; i < n; i++) b[i] = i % 251;
	return b;
}

function same(a, b) {
	return a.length === b.length && a.every((x, i) => x === b[i]);
}

function within(ms, what, promise) {
	let timer;
	const late = new Promise((_, reject) => {
		timer = setTimeout(() => reject(new Error(what + " took too long")), ms);
	});
	return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function readAll(stream) {
	const parts = [];
	const reader = stream.getReader();
	for (;;) {
		const { value, done } = await reader.read();
		if (done) break;
		parts.push(value);
	}
	return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function writeAll(stream, bytes) {
	const writer = stream.getWriter();
	await writer.write(bytes);
	await writer.close();
}

function hopOf(url) {
	const entries = performance.getEntriesByName(url);
	return entries.length ? entries[entries.length - 1].nextHopProtocol : "unknown";
}

function openWebSocket() {
	const ws = new WebSocket(server.replace("https:", "wss:") + "/ws" + allow, ["echo"]);
	ws.binaryType = "arraybuffer";
	const messages = [];
	let wake = () => {};
	ws.onmessage = (e) => {
		messages.push(e.data);
		wake();
	};
	ws.next = async () => {
		while (!messages.length) await new Promise((resolve) => (wake = resolve));
		return messages.shift();
	};
	ws.opened = new Promise((resolve, reject) => {
		ws.onopen = resolve;
		ws.onerror = () => reject(new Error("refused"));
	});
	ws.ended = new Promise((resolve) => (ws.onclose = resolve));
	return ws;
}

async function openWebTransport(path) {
	const bytes = query.get("hash").match(/../g).map((x) => parseInt(x, 16));
	const options = { serverCertificateHashes: [{ algorithm: "sha-256", value: new Uint8Array(bytes) }] };
	const session = new WebTransport(server + path, options);
	session.closed.catch(() => {}); // ready says it too
	await session.ready;
	return session;
}

const steps = {
	async navigation() {
		return performance.getEntriesByType("navigation")[0].nextHopProtocol;
	},

	async fetch() {
		const url = server + "/bytes/1000000";
		const got = new Uint8Array(await (await fetch(url)).arrayBuffer());
		return (same(got, pattern(1000000)) ? "intact" : "differs") + " over " + hopOf(url);
	},

	async upload() {
		const response = await fetch(server + "/sum", { method: "POST", body: pattern(1000000) });
		const seen = await response.json();
		return `${seen.method} ${seen.length} ${seen.proto} ${seen.alpn} ${seen.sum}`;
	},

	async websocket() {
		const ws = openWebSocket();
		await ws.opened;
		const result = [ws.protocol];
		ws.send("version?");
		result.push(await ws.next());
		const text = "é".repeat(1000);
		ws.send(text);
		result.push((await ws.next()) === text ? "text" : "another text");
		const binary = pattern(100000);
		ws.send(binary);
		result.push(same(new Uint8Array(await ws.next()), binary) ? "binary" : "another binary");
		ws.close(1000, "bye");
		const end = await ws.ended;
		result.push(end.code, end.wasClean ? "clean" : "not clean");
		return result.join(" ");
	},

	async webtransport() {
		const session = await openWebTransport("/wt" + allow);
		const bidi = session.incomingBidirectionalStreams.getReader();
		const uni = session.incomingUnidirectionalStreams.getReader();
		const data = pattern(300000);
		const result = [];

		const hello = (await bidi.read()).value;
		result.push(new TextDecoder().decode(await readAll(hello.readable)));

		const both = await session.createBidirectionalStream();
		const [back] = await Promise.all([readAll(both.readable), writeAll(both.writable, data)]);
		result.push(same(back, data) ? "bidirectional" : "another bidirectional");

		await writeAll(await session.createUnidirectionalStream(), data);
		result.push(same(await readAll((await uni.read()).value), data) ? "unidirectional" : "another unidirectional");

		const datagrams = session.datagrams;
		const writable = datagrams.writable || datagrams.createWritable();
		const writer = writable.getWriter();
		const reading = datagrams.readable.getReader().read();
		const again = setInterval(() => writer.write(new TextEncoder().encode("datagram")), 100); // one may be lost
		result.push(new TextDecoder().decode((await reading).value));
		clearInterval(again);

		session.close({ closeCode: 7, reason: "bye" });
		await session.closed;
		return result.join(", ");
	},

	// MQTT 5 over WebTransport: CONNECT, and PUBLISH of "hello" to the topic
	// browser, on the first stream.
	async mqtt() {
		const session = await openWebTransport("/mqtt");
		const stream = await session.createBidirectionalStream();
		const writer = stream.writable.getWriter();
		const reader = stream.readable.getReader();
		const text = (s) => [0, s.length, ...new TextEncoder().encode(s)];
		const packet = (type, ...body) => new Uint8Array([type, body.length, ...body]);
		await writer.write(packet(0x10, ...text("MQTT"), 5, 2, 0, 60, 0, ...text("browser")));
		const connack = (await reader.read()).value;
		if (connack[0] !== 0x20 || connack[3] !== 0) throw new Error("CONNACK " + connack);
		await writer.write(packet(0x32, ...text("browser"), 0, 1, 0, ...new TextEncoder().encode("hello from the browser")));
		const puback = (await reader.read()).value;
		if (puback[0] !== 0x40 || puback[3] !== 1) throw new Error("PUBACK " + puback);
		await writer.write(packet(0xe0));
		await writer.close();
		return "published";
	},
};

function show(name, result, failed) {
	const row = document.getElementById("steps").insertRow();
	row.insertCell().textContent = name;
	row.insertCell().textContent = result;
	row.className = failed ? "failed" : "";
}

async function run() {
	document.getElementById("page").textContent = location.origin;
	document.getElementById("server").textContent = server;
	const results = {};
	for (const name of query.get("steps").split(",")) {
		try {
			results[name] = await within(60000, name, steps[name]());
			show(name, results[name], false);
		} catch (e) {
			results[name] = "error: " + e.message;
			show(name, results[name], true);
		}
	}
	const answer = await fetch("/report", { method: "POST", body: JSON.stringify(results) });
	const next = await answer.text();
	if (next) location = next;
}

run();
