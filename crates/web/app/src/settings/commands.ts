import type { Context } from '../engine/context';
import type { Settings } from '../session/state';

/** Who the user is, as the API has it. */
export async function loadSelf(ctx: Pick<Context, 'api' | 'dispatch' | 'client' | 'self'>): Promise<void> {
  const self = await ctx.api.call('GET', '/self');
  const { name, handle, email, accent_id = 0 } = self;
  ctx.dispatch({
    type: 'session/self',
    self: { key: ctx.self, name, handle, email, accent: accent_id, client: ctx.client },
  });
  ctx.dispatch({ type: 'people/merged', profiles: [self] });
}

/** Other apps keep the wish for receipts under this name, too. */
const RECEIPTS = 'WIRE_RECEIPT_MODE';

export async function loadReceiptWish(ctx: Context): Promise<void> {
  const mode = (await ctx.api.call('GET', '/properties-values'))?.[RECEIPTS];
  if (typeof mode === 'number') ctx.dispatch({ type: 'session/settings', settings: { readReceipts: mode > 0 } });
}

/** What a person can change about the own account. */
export function settingsCommands(ctx: Context) {
  return {
    async setName(name: string): Promise<void> {
      await ctx.api.call('PUT', '/self', { json: { name } });
      await loadSelf(ctx);
    },

    async setHandle(handle: string): Promise<void> {
      await ctx.api.call('PUT', '/self/handle', { json: { handle } });
      await loadSelf(ctx);
    },

    async setSettings(settings: Partial<Settings>): Promise<void> {
      ctx.dispatch({ type: 'session/settings', settings });
      if (settings.readReceipts !== undefined) {
        await ctx.api.call('PUT', `/properties/${RECEIPTS}`, { json: settings.readReceipts ? 1 : 0 });
      }
    },
  };
}
