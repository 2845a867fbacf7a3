// A worker from the protos alone: node worker.js [HOST:PORT]
// It says Hello, answers each Ping with a Pong and sends a result for each task. Nothing else is needed.
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const SERVER = process.argv[2] || process.env.MAESTOSO_SERVER || "127.0.0.1:8090";
const PROTOS = path.join(__dirname, "..", "..", "..", "proto");

// What the worker can do: task type -> function from input to output.
const handlers = {
  greet: async ({ name }) => ({ greeting: `Hello ${name}, from Node` }),
  divide: async ({ a, b }) => {
    if (b === 0) throw new Error("division by zero");
    return { quotient: a / b };
  },
};

const definition = loader.loadSync("maestoso/task/v1/task_service.proto", { includeDirs: [PROTOS] });
const { TaskService } = grpc.loadPackageDefinition(definition).maestoso.task.v1;
const client = new TaskService(SERVER, grpc.credentials.createInsecure());

async function run(task) {
  try {
    const output = await handlers[task.taskType](JSON.parse(task.input.toString()));
    return { token: task.token, output: Buffer.from(JSON.stringify(output)) };
  } catch (error) {
    return { token: task.token, failure: { message: error.message, type: error.name } };
  }
}

function connect() {
  const stream = client.Connect();
  stream.on("data", (frame) => {
    if (frame.ping) stream.write({ pong: { number: frame.ping.number } });
    for (const task of frame.tasks?.tasks ?? []) {
      run(task).then((result) => stream.write({ results: { results: [result] } }));
    }
  });
  // The server hands what was not finished to others; connect again and go on.
  stream.on("error", (error) => console.error(`stream ended: ${error.details || error.message}`));
  stream.on("close", () => setTimeout(connect, 500));
  stream.write({
    hello: {
      workerId: `node-${process.pid}`,
      taskTypes: Object.keys(handlers).map((taskType) => ({ taskType })),
      capacity: { tasks: 50 },
    },
  });
}

connect();
