// The page of a video: its timeline, filters and the crops over the picture. Plain script: pages open from disk, where modules do not load.
(() => {
  "use strict";

  const LANE_HEIGHT = 24;
  const BAR_HEIGHT = 16;
  const AXIS_HEIGHT = 26;
  const MIN_BAR_WIDTH = 2;
  const MIN_ALPHA = 0.35; // of a bar whose score is 0
  const ALPHA_LEVELS = 8;
  const MIN_SPAN_S = 1; // on the whole width
  const HIT_SLACK = 3;
  const ZOOM_STEP = 1.6;
  const THUMBNAIL_WIDTH = 176;
  const MAX_TABLE_ROWS = 500;
  const MS = 1000;
  const SCORE_SCALE = 1000;
  const CLICK_SLACK = 4; // pixels that a pointer may move in a click
  const PRINTED_WIDTH = 480; // of A4, beside the names of the lanes
  const MAX_CANVAS = 32000; // pixels; browsers draw nothing on larger ones

  const data = JSON.parse(document.getElementById("labels").textContent);
  const byId = (id) => document.getElementById(id);
  const video = byId("video");
  const lanesBox = byId("lanes");
  const surface = byId("surface");
  const canvas = byId("bars");
  const axisCanvas = byId("axis");
  const tooltip = byId("tooltip");
  const status = byId("status");

  const people = data.people.map((person, index) => ({ ...person, index, fill: data.colors[person.color] }));
  const events = data.events.person.map((person, index) => ({
    index,
    person,
    action: data.events.action[index],
    start: data.events.start_ms[index] / MS,
    end: data.events.end_ms[index] / MS,
    score: data.events.score[index] / SCORE_SCALE,
  }));
  const duration = events.reduce((end, event) => Math.max(end, event.end), data.duration_s || 0.001);

  const laneKey = (person, action) => person * data.actions.length + action;
  const allLanes = new Map();
  for (const event of events) {
    const key = laneKey(event.person, event.action);
    if (!allLanes.has(key)) {
      allLanes.set(key, { person: event.person, action: event.action, part: data.body_part_of[event.action], events: [], heat: [] });
    }
    allLanes.get(key).events.push(event);
  }
  for (const strip of data.activity) {
    const lane = allLanes.get(laneKey(strip.person, strip.action));
    lane.heat.push({ start: strip.start_s, step: strip.step_s, values: Uint8Array.from(atob(strip.values), (c) => c.charCodeAt(0)) });
  }
  const sortedLanes = [...allLanes.values()].sort((a, b) => a.person - b.person || a.part - b.part || a.action - b.action);
  for (const lane of sortedLanes) {
    lane.longest = lane.events.reduce((length, event) => Math.max(length, event.end - event.start), 0);
  }

  const filters = { people: new Set(people.map((p) => p.index)), parts: new Set(data.body_parts.map((_, part) => part)), minScore: 0 };
  const isShown = (event) => event.score >= filters.minScore;
  let lanes = [];
  let selected = null;
  let playUntil = null;
  let expectedSeek = null;
  let transform = d3.zoomIdentity;
  let width = 1;
  let height = 1;
  let isDrawPending = false;
  let isPrinting = false;
  let printedSpan = null;
  let isFollowing = true; // the playhead, out of what is shown

  // ---- words

  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10);
    const hours = Math.floor(tenths / 36000);
    const minutes = Math.floor(tenths / 600) % 60;
    const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
    return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  };
  const describe = (event) =>
    `${people[event.person].name}: ${data.actions[event.action]}, ${clock(event.start)} to ${clock(event.end)}, score ${event.score.toFixed(2)}`;

  // ---- scales and zoom

  const base = d3.scaleLinear([0, duration], [0, 1]);
  const scale = () => (isPrinting ? d3.scaleLinear(printedSpan, [0, width]) : transform.rescaleX(base));
  const zoom = d3
    .zoom()
    .filter((event) => {
      if (event.type === "wheel") return event.ctrlKey || event.metaKey;
      return event.touches ? event.touches.length > 1 : !event.button;
    })
    .clickDistance(CLICK_SLACK)
    .on("zoom", (event) => {
      transform = event.transform;
      isFollowing = isPlayheadShown();
      hideTooltip();
      draw();
    });
  const surfaceSelection = d3.select(surface).call(zoom).on("dblclick.zoom", null);
  surface.addEventListener(
    "wheel",
    (event) => {
      const across = event.shiftKey && !event.deltaX ? event.deltaY : event.deltaX;
      if (event.ctrlKey || event.metaKey || Math.abs(across) <= (event.shiftKey ? 0 : Math.abs(event.deltaY))) return;
      event.preventDefault();
      zoom.translateBy(surfaceSelection, -across / transform.k, 0);
    },
    { passive: false },
  );

  // One finger moves time, or scrolls if it goes up or down, which the browser then takes over.
  let touchedAt = null;
  surface.addEventListener("pointerdown", (event) => {
    touchedAt = event.pointerType === "touch" && event.isPrimary ? event.clientX : null;
  });
  surface.addEventListener("pointermove", (event) => {
    if (touchedAt === null || !event.isPrimary) return;
    zoom.translateBy(surfaceSelection, (event.clientX - touchedAt) / transform.k, 0);
    touchedAt = event.clientX;
  });
  for (const name of ["pointerup", "pointercancel"]) surface.addEventListener(name, () => (touchedAt = null));

  function show(start, end) {
    const k = Math.max(1, Math.min(duration / Math.max(end - start, MIN_SPAN_S), maxZoom()));
    const shown = duration / k;
    const first = Math.min(Math.max((start + end - shown) / 2, 0), duration - shown);
    surfaceSelection.call(zoom.transform, d3.zoomIdentity.scale(k).translate(-base(first), 0));
  }
  const zoomBy = (factor) => zoom.scaleBy(surfaceSelection, factor);
  const panBy = (fraction) => zoom.translateBy(surfaceSelection, (-fraction * width) / transform.k, 0);
  const maxZoom = () => Math.max(1, duration / MIN_SPAN_S);

  function isPlayheadShown() {
    if (!video) return false;
    const [from, to] = scale().domain();
    return from <= video.currentTime && video.currentTime <= to;
  }

  function makeVisible(event) {
    const [start, end] = scale().domain();
    if (event.start < start || event.end > end) show(event.start - (end - start) / 2, event.start + (end - start) / 2);
    const row = lanes.findIndex((lane) => lane.person === event.person && lane.action === event.action);
    const top = row * LANE_HEIGHT;
    if (top < lanesBox.scrollTop) lanesBox.scrollTop = top;
    else if (top + LANE_HEIGHT > lanesBox.scrollTop + lanesBox.clientHeight) lanesBox.scrollTop = top + LANE_HEIGHT - lanesBox.clientHeight;
  }

  // ---- drawing

  function draw() {
    if (isDrawPending) return;
    isDrawPending = true;
    requestAnimationFrame(() => {
      isDrawPending = false;
      drawNow();
    });
  }

  const PRINTED = { text: "#000", note: "#333", line: "#999", thin: "#ddd", page: "#fff", link: "#000" };
  function colors() {
    if (isPrinting) return PRINTED;
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    return { text: of("--text"), note: of("--note"), line: of("--line"), thin: of("--thin"), page: of("--page"), link: of("--link") };
  }

  function fit(element, cssWidth, cssHeight) {
    const ratio = Math.min(window.devicePixelRatio || 1, MAX_CANVAS / cssHeight);
    const [pixelWidth, pixelHeight] = [Math.round(cssWidth * ratio), Math.round(cssHeight * ratio)];
    if (element.width !== pixelWidth || element.height !== pixelHeight) {
      element.width = pixelWidth;
      element.height = pixelHeight;
      element.style.width = `${cssWidth}px`;
      element.style.height = `${cssHeight}px`;
    }
    const context = element.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, cssWidth, cssHeight);
    return context;
  }

  function drawNow() {
    const palette = colors();
    const x = scale();
    drawAxis(x, palette);
    const shown = isPrinting ? lanes.length * LANE_HEIGHT : height; // paper does not scroll
    const top = isPrinting ? 0 : lanesBox.scrollTop;
    const context = fit(canvas, width, shown);
    const [from, to] = x.domain();
    const first = Math.floor(top / LANE_HEIGHT);
    const last = Math.min(lanes.length, Math.ceil((top + shown) / LANE_HEIGHT));
    drawGrid(context, x, palette, first, last, top, shown);
    for (let row = first; row < last; row += 1) drawHeat(context, x, lanes[row], row * LANE_HEIGHT - top, from, to);
    for (let row = first; row < last; row += 1) drawBars(context, x, lanes[row], row * LANE_HEIGHT - top, from, to, palette);
    if (selected) drawSelected(context, x, top, palette);
    drawPlayhead(context, x, shown, palette);
  }

  function drawAxis(x, palette) {
    const context = fit(axisCanvas, width, AXIS_HEIGHT);
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = palette.note;
    context.strokeStyle = palette.note;
    context.textBaseline = "middle";
    for (const tick of ticks(x)) {
      const at = Math.round(x(tick)) + 0.5;
      const text = clock(tick).replace(/\.0$/, "");
      const room = context.measureText(text).width;
      context.textAlign = at < room / 2 ? "left" : at > width - room / 2 ? "right" : "center";
      context.fillText(text, Math.min(Math.max(at, 1), width - 1), AXIS_HEIGHT / 2 - 2);
      context.beginPath();
      context.moveTo(at, AXIS_HEIGHT - 5);
      context.lineTo(at, AXIS_HEIGHT);
      context.stroke();
    }
    drawPlayhead(context, x, AXIS_HEIGHT, palette);
  }

  const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  function ticks(x) {
    const [from, to] = x.domain();
    const wanted = (to - from) / Math.max(2, width / 90);
    const step = STEPS_S.find((each) => each >= wanted) || 7200;
    return d3.range(Math.ceil(from / step), Math.floor(to / step) + 1).map((number) => number * step);
  }

  function drawGrid(context, x, palette, first, last, top, bottom) {
    context.strokeStyle = palette.thin;
    context.beginPath();
    for (const tick of ticks(x)) {
      const at = Math.round(x(tick)) + 0.5;
      context.moveTo(at, 0);
      context.lineTo(at, bottom);
    }
    for (let row = first; row <= last; row += 1) {
      const at = row * LANE_HEIGHT - top - 0.5;
      context.moveTo(0, at);
      context.lineTo(width, at);
    }
    context.stroke();
    context.strokeStyle = palette.note;
    context.beginPath();
    for (let row = Math.max(first, 1); row < last; row += 1) {
      if (lanes[row].person === lanes[row - 1].person) continue;
      context.moveTo(0, row * LANE_HEIGHT - top - 0.5);
      context.lineTo(width, row * LANE_HEIGHT - top - 0.5);
    }
    context.stroke();
  }

  function drawHeat(context, x, lane, top, from, to) {
    context.fillStyle = people[lane.person].fill;
    for (const { start, step, values } of lane.heat) {
      const perPixel = Math.max(1, Math.floor(1 / Math.max((x(step) - x(0)), 1e-9)));
      const first = Math.max(0, Math.floor((from - start) / step / perPixel) * perPixel);
      const last = Math.min(values.length, Math.ceil((to - start) / step));
      for (let index = first; index < last; index += perPixel) {
        let peak = 0;
        for (let each = index; each < Math.min(index + perPixel, values.length); each += 1) peak = Math.max(peak, values[each]);
        if (peak < 8) continue;
        const left = x(start + index * step);
        context.globalAlpha = (peak / 255) * 0.5;
        context.fillRect(left, top + LANE_HEIGHT - 6, Math.max(x(start + (index + perPixel) * step) - left, 0.5), 5);
      }
    }
    context.globalAlpha = 1;
  }

  // Events of a lane that may be in a span: those that start before its end, from the first whose end can reach its start.
  const startOf = d3.bisector((event) => event.start);
  function between(lane, from, to) {
    return [startOf.left(lane.events, from - lane.longest), startOf.right(lane.events, to)];
  }

  function barOf(event, x) {
    const left = x(event.start);
    return [left, Math.max(x(event.end) - left, MIN_BAR_WIDTH)];
  }

  function drawBars(context, x, lane, laneTop, from, to, palette) {
    const [first, last] = between(lane, from, to);
    const top = laneTop + (LANE_HEIGHT - BAR_HEIGHT) / 2 - (lane.heat.length ? 2 : 0);
    const levels = Array.from({ length: ALPHA_LEVELS + 1 }, () => null);
    const outlines = new Path2D();
    for (let index = first; index < last; index += 1) {
      const event = lane.events[index];
      if (!isShown(event) || event.end < from) continue;
      const [left, length] = barOf(event, x);
      const level = Math.round(event.score * ALPHA_LEVELS);
      levels[level] ??= new Path2D();
      levels[level].rect(left, top, length, BAR_HEIGHT);
      if (length > 5) outlines.rect(left + 0.5, top + 0.5, length - 1, BAR_HEIGHT - 1);
    }
    context.fillStyle = people[lane.person].fill;
    levels.forEach((path, level) => {
      if (!path) return;
      context.globalAlpha = MIN_ALPHA + ((1 - MIN_ALPHA) * level) / ALPHA_LEVELS;
      context.fill(path);
    });
    context.globalAlpha = 0.6;
    context.strokeStyle = palette.text;
    context.stroke(outlines);
    context.globalAlpha = 1;
  }

  function drawSelected(context, x, top, palette) {
    const row = lanes.findIndex((lane) => lane.person === selected.person && lane.action === selected.action);
    if (row < 0) return;
    const [left, length] = barOf(selected, x);
    context.strokeStyle = palette.text;
    context.lineWidth = 3;
    context.strokeRect(left - 1.5, row * LANE_HEIGHT - top + 1.5, length + 3, LANE_HEIGHT - 3);
    context.lineWidth = 1;
  }

  function drawPlayhead(context, x, length, palette) {
    if (!video) return;
    const at = x(video.currentTime);
    context.fillStyle = palette.link;
    context.fillRect(at - 1, 0, 2, length);
  }

  // ---- lanes and filters

  function layOut() {
    dropHiddenSelection();
    lanes = sortedLanes.filter((lane) => filters.people.has(lane.person) && filters.parts.has(lane.part));
    const list = byId("lane-names");
    list.replaceChildren(
      ...lanes.map((lane, row) => {
        const item = document.createElement("li");
        const isFirst = row === 0 || lanes[row - 1].person !== lane.person;
        if (people.length > 1) {
          const badge = document.createElement("span");
          badge.className = `badge c${people[lane.person].color}`;
          badge.textContent = people[lane.person].short;
          badge.title = people[lane.person].name;
          item.append(badge, " ");
        }
        item.append(data.actions[lane.action]);
        item.title = `${people[lane.person].name}: ${data.actions[lane.action]} (${data.body_parts[lane.part]})`;
        item.classList.toggle("first", isFirst && row > 0);
        return item;
      }),
    );
    resize();
    count();
    fillTable();
  }

  function dropHiddenSelection() {
    if (!selected) return;
    if (isShown(selected) && filters.people.has(selected.person) && filters.parts.has(data.body_part_of[selected.action])) return;
    selected = null;
    status.textContent = "";
  }

  function count() {
    const shown = lanes.reduce((total, lane) => total + lane.events.filter(isShown).length, 0);
    byId("count").textContent = `${shown} of ${events.length} events`;
  }

  function resize() {
    surface.style.height = `${Math.max(lanes.length, 1) * LANE_HEIGHT}px`;
    const before = width;
    width = Math.max(surface.clientWidth, 50);
    height = Math.max(Math.min(lanesBox.clientHeight, lanes.length * LANE_HEIGHT), LANE_HEIGHT);
    base.range([0, width]);
    const extent = [[0, 0], [width, height]];
    zoom.scaleExtent([1, maxZoom()]).extent(extent).translateExtent(extent);
    if (before !== width) {
      const k = transform.k;
      surfaceSelection.call(zoom.transform, d3.zoomIdentity.translate((transform.x * width) / before, 0).scale(k));
    }
    draw();
  }

  for (const box of document.querySelectorAll("input[name=person]")) {
    box.addEventListener("change", () => {
      filters.people[box.checked ? "add" : "delete"](Number(box.value));
      layOut();
      drawCrops();
    });
  }
  for (const box of document.querySelectorAll("input[name=part]")) {
    box.addEventListener("change", () => {
      filters.parts[box.checked ? "add" : "delete"](Number(box.value));
      layOut();
    });
  }
  byId("min-score").addEventListener("input", (event) => {
    filters.minScore = Number(event.target.value);
    byId("min-score-value").textContent = filters.minScore.toFixed(2);
    dropHiddenSelection();
    count();
    fillTable();
    draw();
  });

  // ---- pointing and clicking

  function eventAt(pointer) {
    const box = surface.getBoundingClientRect();
    const [at, down] = [pointer.clientX - box.left, pointer.clientY - box.top];
    const lane = lanes[Math.floor(down / LANE_HEIGHT)];
    if (!lane) return null;
    const x = scale();
    const slack = x.invert(at + HIT_SLACK) - x.invert(at);
    const time = x.invert(at);
    const [first, last] = between(lane, time - slack, time + slack);
    let nearest = null;
    for (let index = first; index < last; index += 1) {
      const event = lane.events[index];
      if (!isShown(event) || event.end < time - slack) continue;
      if (!nearest || event.end - event.start < nearest.end - nearest.start) nearest = event;
    }
    return nearest;
  }

  surface.addEventListener("click", (pointer) => {
    const event = eventAt(pointer);
    if (event) return play(event);
    const box = surface.getBoundingClientRect();
    return seek(scale().invert(pointer.clientX - box.left));
  });
  axisCanvas.addEventListener("click", (pointer) => seek(scale().invert(pointer.offsetX)));
  surface.addEventListener("pointermove", (pointer) => {
    if (pointer.buttons || pointer.pointerType === "touch") return;
    const event = eventAt(pointer);
    surface.style.cursor = event ? "pointer" : "";
    if (event) showTooltip(event, pointer);
    else hideTooltip();
  });
  surface.addEventListener("pointerleave", hideTooltip);

  let thumbnail = null;
  let hovered = null;
  function showTooltip(event, pointer) {
    if (hovered !== event) {
      hovered = event;
      byId("tooltip-text").textContent = describe(event);
      showThumbnail(event);
    }
    tooltip.hidden = false;
    const room = tooltip.getBoundingClientRect();
    tooltip.style.left = `${Math.max(4, Math.min(pointer.clientX + 14, window.innerWidth - room.width - 4))}px`;
    tooltip.style.top = `${pointer.clientY + 18 + room.height > window.innerHeight ? pointer.clientY - room.height - 10 : pointer.clientY + 18}px`;
  }
  function hideTooltip() {
    hovered = null;
    tooltip.hidden = true;
  }

  // The picture in the middle of an event, of the person: a second player of the same file, which is moved there.
  function showThumbnail(event) {
    const frame = byId("thumbnail");
    if (!video || video.error || !data.width) {
      frame.hidden = true;
      return;
    }
    if (!thumbnail) {
      thumbnail = document.createElement("video");
      thumbnail.muted = true;
      thumbnail.preload = "auto";
      thumbnail.tabIndex = -1;
      thumbnail.src = video.currentSrc || video.src;
      frame.append(thumbnail);
    }
    const middle = (event.start + event.end) / 2;
    const crop = cropAt(people[event.person], middle) || [0, 0, 0, 0, data.width, data.height];
    const [, , left, top, cropWidth, cropHeight] = crop;
    const size = THUMBNAIL_WIDTH / cropWidth;
    frame.style.width = `${THUMBNAIL_WIDTH}px`;
    frame.style.height = `${Math.min(cropHeight * size, 240)}px`;
    thumbnail.style.width = `${data.width * size}px`;
    thumbnail.style.height = `${data.height * size}px`;
    thumbnail.style.left = `${-left * size}px`;
    thumbnail.style.top = `${-top * size}px`;
    thumbnail.currentTime = middle;
    frame.hidden = false;
  }

  function select(event) {
    selected = event;
    status.textContent = describe(event);
    makeVisible(event);
    draw();
  }

  function seek(time) {
    if (!video) return;
    playUntil = null;
    video.currentTime = Math.min(Math.max(time, 0), duration);
    draw();
  }

  function play(event) {
    select(event);
    if (!video || video.error) return;
    playUntil = event.end;
    expectedSeek = event.start;
    video.currentTime = event.start;
    video.play().catch(() => {
      playUntil = null;
    });
  }

  // ---- the picture

  const cropAt = (person, time) => person.spans.find(([start, end]) => start <= time && time < end);
  const overlay = byId("overlay");

  function drawCrops() {
    if (!video) return;
    const time = video.currentTime;
    const size = data.width / 40;
    overlay.replaceChildren(
      ...people
        .filter((person) => filters.people.has(person.index))
        .flatMap((person) => {
          const crop = cropAt(person, time);
          if (!crop) return [];
          const [, , left, top, cropWidth, cropHeight] = crop;
          const doing = events
            .filter((event) => event.person === person.index && event.start <= time && time < event.end && isShown(event))
            .map((event) => data.actions[event.action]);
          const lines = people.length > 1 ? [person.name, ...doing] : doing;
          return [
            svg("rect", { x: left, y: top, width: cropWidth, height: cropHeight, class: "under" }),
            svg("rect", { x: left, y: top, width: cropWidth, height: cropHeight, class: `crop c${person.color}` }),
            ...lines.map((line, row) =>
              svg("text", { x: Math.max(left, 0) + size / 2, y: Math.max(top, 0) + size * 1.3 * (row + 1), "font-size": size }, line),
            ),
          ];
        }),
    );
  }
  function svg(name, attributes, text = "") {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text;
    return element;
  }

  if (video) {
    let isTickPending = false;
    const tick = () => {
      isTickPending = false;
      if (playUntil !== null && video.currentTime >= playUntil) {
        playUntil = null;
        video.pause();
      }
      const isSeen = isPlayheadShown();
      if (!video.paused && isFollowing && !isSeen) {
        const [from, to] = scale().domain();
        show(video.currentTime, video.currentTime + to - from);
      }
      isFollowing = isFollowing || isSeen;
      drawCrops();
      draw();
      if (!video.paused && !video.error) requestTick();
    };
    const requestTick = () => {
      if (isTickPending) return;
      isTickPending = true;
      requestAnimationFrame(tick);
    };
    for (const name of ["play", "pause", "seeked", "timeupdate", "loadedmetadata"]) video.addEventListener(name, requestTick);
    video.addEventListener("seeking", () => {
      if (expectedSeek === null || Math.abs(video.currentTime - expectedSeek) > 0.1) playUntil = null;
      expectedSeek = null;
    });
    const showCannotPlay = () => {
      byId("cannot-play").hidden = false;
      video.hidden = true;
      overlay.toggleAttribute("hidden", true);
    };
    video.addEventListener("error", showCannotPlay);
    if (video.error) showCannotPlay();
  }

  // ---- keys and buttons

  const visibleEvents = () => lanes.flatMap((lane) => lane.events.filter(isShown)).sort((a, b) => a.start - b.start || a.index - b.index);
  function step(direction) {
    const among = visibleEvents();
    if (!among.length) return;
    const index = selected ? among.indexOf(selected) : -1;
    select(among[index < 0 ? (direction > 0 ? 0 : among.length - 1) : Math.min(Math.max(index + direction, 0), among.length - 1)]);
  }
  function stepLane(direction) {
    if (!selected) return step(1);
    let row = lanes.findIndex((lane) => lane.person === selected.person && lane.action === selected.action) + direction;
    for (; row >= 0 && row < lanes.length; row += direction) {
      const among = lanes[row].events.filter(isShown);
      if (among.length) return select(d3.least(among, (event) => Math.abs(event.start - selected.start)));
    }
    return undefined;
  }
  const keys = {
    ArrowRight: () => step(1),
    ArrowLeft: () => step(-1),
    ArrowDown: () => stepLane(1),
    ArrowUp: () => stepLane(-1),
    Home: () => {
      selected = null;
      step(1);
    },
    End: () => {
      selected = null;
      step(-1);
    },
    PageDown: () => panBy(0.8),
    PageUp: () => panBy(-0.8),
    "+": () => zoomBy(ZOOM_STEP),
    "=": () => zoomBy(ZOOM_STEP),
    "-": () => zoomBy(1 / ZOOM_STEP),
    0: () => show(0, duration),
    Enter: () => selected && play(selected),
    " ": () => video && (video.paused ? video.play().catch(() => {}) : video.pause()),
  };
  byId("timeline").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  const buttons = {
    "zoom-in": () => zoomBy(ZOOM_STEP),
    "zoom-out": () => zoomBy(1 / ZOOM_STEP),
    "zoom-all": () => show(0, duration),
    "previous-event": () => step(-1),
    "next-event": () => step(1),
    "play-event": () => (selected ? play(selected) : step(1)),
  };
  for (const [id, action] of Object.entries(buttons)) byId(id).addEventListener("click", action);

  // ---- the same as a table

  const table = byId("event-table");
  function fillTable() {
    if (!table.open) return;
    const among = visibleEvents();
    byId("event-rows").replaceChildren(
      ...among.slice(0, MAX_TABLE_ROWS).map((event) => {
        const row = document.createElement("tr");
        const button = document.createElement("button");
        button.textContent = `${clock(event.start)} to ${clock(event.end)}`;
        button.addEventListener("click", () => play(event));
        const cells = [button, people[event.person].name, data.actions[event.action], data.body_parts[data.body_part_of[event.action]], event.score.toFixed(2)];
        row.append(
          ...cells.map((content, column) => {
            const cell = document.createElement("td");
            if (column < 4) cell.className = "text";
            cell.append(content);
            return cell;
          }),
        );
        return row;
      }),
    );
    byId("event-more").textContent =
      among.length > MAX_TABLE_ROWS ? `The first ${MAX_TABLE_ROWS} of ${among.length}: filter to see others, or export them.` : "";
  }
  table.addEventListener("toggle", fillTable);

  // ---- begin

  lanesBox.addEventListener("scroll", () => {
    hideTooltip();
    draw();
  });
  new ResizeObserver(resize).observe(lanesBox);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hideTooltip());
  for (const name of ["beforeprint", "afterprint"]) {
    window.addEventListener(name, () => {
      const span = scale().domain();
      isPrinting = name === "beforeprint";
      printedSpan = span;
      if (isPrinting) width = PRINTED_WIDTH;
      else resize();
      drawNow();
    });
  }
  layOut();
  drawNow();
  drawCrops();
})();
