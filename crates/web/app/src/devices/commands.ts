import type { Context } from '../engine/context';
import type { Device } from '../session/state';

export async function loadDevices(ctx: Context): Promise<void> {
  const devices: Device[] = await ctx.api.call('GET', '/clients');
  ctx.dispatch({ type: 'session/devices', devices });
}

/** What a person can do about own devices. */
export function deviceCommands(ctx: Context) {
  return {
    loadDevices: () => loadDevices(ctx),

    async removeDevice(id: string, password: string): Promise<void> {
      await ctx.api.call('DELETE', `/clients/${id}`, { json: { password } });
      await loadDevices(ctx);
    },

    /** The fingerprint of the keys of this device. */
    fingerprint: () => ctx.keys.fingerprint(),
  };
}
