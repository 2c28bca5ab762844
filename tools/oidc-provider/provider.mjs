// A real OpenID provider on loopback, for the tests of signing in.
//
//   node provider.mjs FOLDER SETTINGS
//
// FOLDER holds `node_modules`. SETTINGS is JSON: `port` (0: any), `redirects`, `claims` (what is
// told of each account by its login name), `secret` of the client `xos` (none: a public client),
// `slim` (claims only at the userinfo endpoint). Accounts are made as they sign in; any password
// is right. Prints the issuer once it answers, and ends when standard input does. Its keys are new
// at each start.
import { createPrivateKey, generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, text] = process.argv.slice(2);
const settings = JSON.parse(text);
const library = pathToFileURL(join(folder, 'node_modules/oidc-provider/lib/index.js'));
const { default: Provider } = await import(library);

// By way of a text: while a key is exported that was just made, Node 20 can collect what made it,
// which waits for the same lock for ever.
function key(type, options, alg) {
  const publicKeyEncoding = { type: 'spki', format: 'pem' };
  const privateKeyEncoding = { type: 'pkcs8', format: 'pem' };
  const made = generateKeyPairSync(type, { ...options, publicKeyEncoding, privateKeyEncoding });
  const jwk = createPrivateKey(made.privateKey).export({ format: 'jwk' });
  return { ...jwk, kid: randomUUID(), alg, use: 'sig' };
}

const told = ['preferred_username', 'groups', 'level', 'email_verified'];
const configuration = {
  clients: [
    {
      client_id: 'xos',
      client_secret: settings.secret,
      token_endpoint_auth_method: settings.secret ? 'client_secret_basic' : 'none',
      application_type: 'native',
      redirect_uris: settings.redirects,
      grant_types: ['authorization_code', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      id_token_signed_response_alg: 'ES256',
    },
  ],
  jwks: {
    keys: [
      key('ec', { namedCurve: 'P-256' }, 'ES256'),
      key('rsa', { modulusLength: 2048 }, 'RS256'),
    ],
  },
  claims: { openid: ['sub'], profile: told },
  conformIdTokenClaims: Boolean(settings.slim),
  cookies: { keys: [randomUUID()] },
  features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
  async findAccount(_, id) {
    const claims = settings.claims[id] ?? {};
    return { accountId: id, claims: async () => ({ preferred_username: id, ...claims, sub: id }) };
  },
};

const server = createServer();
server.listen(settings.port, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  provider.on('server_error', (_, e) => console.error(e));
  server.on('request', provider.callback());
  console.log(issuer);
});
process.stdin.resume().on('end', () => process.exit(0));
