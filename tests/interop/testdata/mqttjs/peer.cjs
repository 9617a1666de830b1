// A client of mqtt.js: node peer.cjs URL CA VERSION DO TOPIC QOS
// It prints a line of JSON for each thing that happens.
"use strict";
const fs = require("node:fs");
const mqtt = require("mqtt");

const [url, ca, version, action, topic, qosText] = process.argv.slice(2);
const qos = Number(qosText);
const say = (o) => process.stdout.write(JSON.stringify(o) + "\n");
const fail = (err) => { say({ error: String(err) }); process.exit(1); };

const options = {
  protocolVersion: Number(version),
  protocolId: version === "3" ? "MQIsdp" : "MQTT",
  clientId: "mqttjs-" + topic.replaceAll("/", "-").slice(-60),
  ca: fs.readFileSync(ca),
  reconnectPeriod: 0,
  connectTimeout: 100000,
};
if (version === "3") options.clientId = options.clientId.slice(-23);
if (action === "will") options.will = { topic, payload: Buffer.from("gone"), qos, retain: false };

const client = mqtt.connect(url, options);
client.on("error", fail);
client.on("message", (t, payload, packet) => say({
  topic: t, payload: payload.toString(), qos: packet.qos, retain: packet.retain,
  user: packet.properties?.userProperties?.k, type: packet.properties?.contentType,
  expiry: packet.properties?.messageExpiryInterval,
}));

client.once("connect", async () => {
  try {
    switch (action) {
      case "exchange": {
        const granted = await client.subscribeAsync(topic, { qos });
        say({ granted: granted[0].qos });
        for (let i = 0; i < 9; i++) { // each QoS in turn
          const properties = version === "5"
            ? { userProperties: { k: "v" + i }, contentType: "text/plain", messageExpiryInterval: 60 } : undefined;
          await client.publishAsync(topic, "x".repeat(i * i * 1000) + i, { qos: i % 3, properties });
        }
        say({ published: 9 });
        break;
      }
      case "retained": {
        await client.publishAsync(topic, "kept", { qos: 1, retain: true });
        await client.subscribeAsync(topic, { qos });
        break;
      }
      case "will":
        say({ connected: true });
        return; // until it is told to
      case "reply": { // the other half of a request
        client.on("message", async (t, payload, packet) => {
          const { responseTopic, correlationData } = packet.properties;
          await client.publishAsync(responseTopic, "re: " + payload, { qos, properties: { correlationData } });
          say({ replied: true });
        });
        await client.subscribeAsync(topic, { qos });
        say({ ready: true });
        return; // until its standard input ends
      }
    }
  } catch (err) {
    fail(err);
  }
});

process.stdin.once("data", () => { // it breaks its connection
  client.stream.destroy();
  say({ broken: true });
  process.exit(0);
});
process.stdin.on("end", async () => {
  await client.endAsync();
  say({ ended: true });
});
