// A page's script, run by tests: it connects as the first argument says (JSON), prints what it hears and obeys what it
// is told, one JSON object a line each. It ends with its standard input.
"use strict";
const readline = require("node:readline");

const wish = JSON.parse(process.argv[2]);
const print = (event, ...args) => process.stdout.write(`${JSON.stringify({ event, args })}\n`);

// Connects with Socket.IO. With `resume` it gives back the last cursor that it got, as pages should.
function listen() {
  const { io } = require("socket.io-client");
  let cursor = null;
  const socket = io(wish.url, {
    ...wish.options,
    auth: (give) => give({ ...wish.auth, ...(wish.resume && cursor ? { cursor } : {}) }),
  });
  socket.onAny((event, data, place) => {
    cursor = event === "snapshot" ? place : (place ?? cursor);
    print(event, data, place);
  });
  socket.on("connect", () => print("connect", socket.io.engine.transport.name));
  socket.on("disconnect", (reason) => print("disconnect", reason));
  socket.on("connect_error", (error) => print("connect_error", error.message, error.data ?? null));
  socket.io.on("open", () => socket.io.engine.on("upgrade", (transport) => print("upgrade", transport.name)));
  return {
    emit: ({ args }) => socket.emit(...args),
    ask: ({ args }) => socket.emit(...args, (answer) => print("ack", answer)),
    leave: () => socket.disconnect(),
    return: () => socket.connect(),
  };
}

// Connects with the WebSocket of browsers, without Socket.IO.
function listenRaw() {
  const Socket = globalThis.WebSocket ?? require("ws").WebSocket;
  const socket = new Socket(wish.url);
  socket.addEventListener("open", () => print("connect", "websocket"));
  socket.addEventListener("message", ({ data }) => print("message", JSON.parse(data)));
  socket.addEventListener("close", ({ code, reason }) => print("disconnect", code, reason));
  return { send: ({ args }) => socket.send(JSON.stringify(args[0])), leave: () => socket.close() };
}

const commands = wish.raw ? listenRaw() : listen();
const input = readline.createInterface({ input: process.stdin });
input.on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
input.on("close", () => process.exit(0));
