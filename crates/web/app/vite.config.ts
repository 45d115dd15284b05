import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

/** While developing: everything but the app is asked of this backend. */
const backend = process.env.ALDIS_BACKEND ?? 'http://127.0.0.1:18100';
/** As the backend serves the app. */
const policy = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "media-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
].join('; ');
const proxy = { '^/(?!app/)': { target: backend, ws: true } };

export default defineConfig({
  base: '/app/',
  plugins: [react()],
  build: {
    target: 'es2022',
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    assetsInlineLimit: 0,
    sourcemap: false,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { proxy, strictPort: true },
  preview: { proxy, strictPort: true, headers: { 'Content-Security-Policy': policy } },
});
