import { put, type Table } from '../model';

/** What is known of another backend, from answers about it and from what comes from it. */
export interface Backend {
  state: 'reachable' | 'unreachable' | 'cut-off';
  /** When that became so. */
  since: string;
  /** The label of the last failure. */
  label?: string;
}

export interface FederationState {
  backends: Table<Backend>;
}

export const noFederation: FederationState = { backends: {} };

export type FederationAction =
  | { type: 'federation/reachable'; domains: string[]; time: string }
  | { type: 'federation/unreachable'; domains: string[]; time: string; label?: string }
  | { type: 'federation/cut-off'; domain: string; time: string };

export function reduceFederation(state: FederationState, action: FederationAction): FederationState {
  const set = (backends: Table<Backend>, domain: string, next: Backend): Table<Backend> => {
    const known = backends[domain];
    if (known && known.state === next.state && known.label === next.label) return backends;
    return put(backends, domain, known?.state === next.state ? { ...next, since: known.since } : next);
  };
  let backends = state.backends;
  switch (action.type) {
    case 'federation/reachable':
      for (const domain of action.domains) backends = set(backends, domain, { state: 'reachable', since: action.time });
      break;
    case 'federation/unreachable':
      for (const domain of action.domains) {
        // That nothing gets through is no news then.
        if (backends[domain]?.state === 'cut-off') continue;
        backends = set(backends, domain, { state: 'unreachable', since: action.time, label: action.label });
      }
      break;
    case 'federation/cut-off':
      backends = set(backends, action.domain, { state: 'cut-off', since: action.time });
      break;
  }
  return backends === state.backends ? state : { ...state, backends };
}

/** Whether a backend is known not to answer. */
export const isAway =
  ({ backends }: FederationState) =>
  (domain: string): boolean =>
    (backends[domain]?.state ?? 'reachable') !== 'reachable';
