// The own posts to the public channel: under which key, and who has it.

import * as message from "./gen/socp/v1/message_pb.js";
import { hex, newChannelKey, readOutcome, sealPost, serverIdOf, sha256, wrapChannelKey } from "./documents.js";
import { bareKey, keyOfEntry } from "./view.js";

const newKey = () => ({ ...newChannelKey(), given: new Map(), holders: new Map() });

export class Channel {
  // For whom it was wrapped, with the hash of their key statement; and the entries of those who surely got it.
  #own = newKey();

  // `view` gives the present one, `keyOf` the verified key of a user, or none, `send` is PostToChannel, and `doubt` is told of
  // outcomes that do not check out. Answers how many users it was handed to, and the homes that did not say.
  async post(text, { me, view, keyOf, send, doubt }) {
    const own = bareKey(me.name, me.homeId);
    const members = view().values().filter((e) => keyOfEntry(e) !== own);
    const statementOf = (e) => hex(e.keyStatementSha256);
    // A new channel key at each start, and when the key statement of a member who was given it is another now.
    const given = (e) => this.#own.given.get(keyOfEntry(e)) ?? statementOf(e);
    if (members.some((e) => given(e) !== statementOf(e))) this.#own = newKey();
    const channel = this.#own;
    // A member lacks the key unless a wrap was handed over to this very entry: a session that is new cannot have it.
    const lacking = members.filter((e) => channel.holders.get(keyOfEntry(e)) !== e).slice(0, 4096);
    const wraps = [];
    const wrapped = [];
    for (const e of lacking) {
      const to = await keyOf(e.name, e.serverId); // a key that changed gets none
      if (!to) continue;
      wraps.push(wrapChannelKey(channel, to));
      wrapped.push(e);
      channel.given.set(keyOfEntry(e), statementOf(e));
    }
    const post = sealPost(me, channel, text);
    const silent = new Set(members.map((e) => e.serverId));
    let recipients = 0; // the answer's own number is signed by nobody
    const read = (signed) => {
      const homeId = serverIdOf(signed.homeKey);
      if (!silent.has(homeId)) return; // it has no members, or has had its word
      const outcome = readOutcome(signed, homeId, homeId, sha256(post.statement));
      silent.delete(homeId);
      if (outcome.kind !== message.OutcomeKind.HANDED_OVER) return;
      recipients += outcome.recipients;
      // A member whose stream just broke is in the view, gets no post and keeps its entry. The home does not say who
      // got it, so its wraps count only if it reached all of its members.
      if (outcome.recipients < members.filter((e) => e.serverId === homeId).length) return;
      for (const e of wrapped)
        if (e.serverId === homeId && view().get(keyOfEntry(e)) === e) channel.holders.set(keyOfEntry(e), e);
    };
    // Homes that did not answer are asked again, by the same bytes.
    for (let n = 0, again = true; again && n < 3; n++) {
      const answer = await send({ post, wraps });
      for (const signed of answer.outcomes) {
        try {
          read(signed);
        } catch (error) {
          doubt(error); // what became of the post there is not known
        }
      }
      again = answer.silentHomeIds.some((homeId) => silent.has(homeId));
    }
    return { recipients, silent: [...silent] };
  }
}
