// Numbers of the charts: the ticks of their axes, and how values, steps and times are written.
(() => {
  const niceStep = (span, count) => {
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const factor = [1, 2, 2.5, 5, 10].find((f) => f * power >= rough * 0.999);
    return factor * power;
  };
  const linearTicks = (low, high, count) => {
    const step = niceStep(high - low || Math.abs(high) || 1, count);
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(i * step || 0);
    return ticks;
  };
  const logTicks = (low, high) => {
    const ticks = [];
    const wide = Math.log10(high / low) > 2.2;
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      for (const factor of wide ? [1] : [1, 2, 5]) ticks.push(factor * 10 ** power);
    }
    const inside = ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    return inside.length >= 2 ? inside : linearTicks(low, high, 4);
  };
  // The labels of an axis have the same form: as many decimals as neighbors need to differ, or powers of ten.
  const tickTexts = (ticks, log) => {
    const largest = Math.max(...ticks.map(Math.abs));
    if (largest >= 1e5 || largest < 5e-3) {
      const write = (digits) => ticks.map((t) => (t === 0 ? "0" : t.toExponential(digits).replace(/\.?0*e/, "e").replace("e+", "e")));
      return [1, 2, 3, 4, 5].map(write).find((texts) => new Set(texts).size === ticks.length) ?? write(6);
    }
    if (log) return ticks.map((t) => String(+t.toPrecision(3)));
    const step = ticks.length > 1 ? ticks[1] - ticks[0] : largest;
    const decimals = [0, 1, 2, 3, 4, 5].find((d) => Math.abs(step - +step.toFixed(d)) < 1e-6 * step) ?? 6;
    return ticks.map((t) => t.toFixed(decimals));
  };
  const stepText = (value) => {
    if (value >= 1e6) return `${+(value / 1e6).toFixed(2)}M`;
    if (value >= 1e4) return `${+(value / 1e3).toFixed(1)}k`;
    return value.toLocaleString("en");
  };
  const timeText = (seconds) => {
    if (seconds < 90) return `${+seconds.toFixed(1)} s`;
    if (seconds < 5400) return `${+(seconds / 60).toFixed(1)} min`;
    return `${+(seconds / 3600).toFixed(2)} h`;
  };

  window.chartTicks = { linearTicks, logTicks, tickTexts, stepText, timeText };
})();
