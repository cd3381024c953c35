// The player: dense, sparse and their difference, frame by frame. Without scripts it stays hidden.
(() => {
  const data = JSON.parse(document.getElementById("films").textContent);
  const section = document.getElementById("player");
  if (!section) return;
  const find = (id) => document.getElementById(id);
  const [run, frame, factor, play] = ["run", "frame", "factor", "play"].map(find);
  const panels = {};
  for (const canvas of section.querySelectorAll("canvas")) {
    canvas.width = data.width;
    canvas.height = data.height;
    panels[canvas.dataset.panel] = canvas.getContext("2d", { willReadFrequently: true });
  }
  const films = {};
  const load = (name) =>
    (films[name] ??= new Promise((done) => {
      const image = new Image();
      image.onload = () => done(image);
      image.src = data.films[name];
    }));

  const pixels = (context, film, index) => {
    const { width, height } = data;
    context.drawImage(film, 0, index * height, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height);
  };

  const draw = async () => {
    const name = run.value;
    const [dense, sparse] = await Promise.all([load("dense"), load(name)]);
    if (name !== run.value) return;
    const index = Number(frame.value);
    const scale = 2 ** Number(factor.value);
    const a = pixels(panels.dense, dense, index);
    const b = pixels(panels.sparse, sparse, index);
    for (let i = 0; i < a.data.length; i += 4)
      for (let c = i; c < i + 3; c++) a.data[c] = scale * Math.abs(a.data[c] - b.data[c]);
    panels.difference.putImageData(a, 0, 0);
    find("sparse-name").textContent = data.labels[name];
    find("factor-value").textContent = scale;
  };

  let timer = 0;
  play.addEventListener("click", () => {
    if (timer) clearInterval(timer);
    timer = timer
      ? 0
      : setInterval(() => {
          frame.value = (Number(frame.value) + 1) % data.frames;
          draw();
        }, 125);
    play.textContent = timer ? "Pause" : "Play";
  });
  for (const control of [run, frame, factor]) control.addEventListener("input", draw);
  section.hidden = false;
  draw();
})();
