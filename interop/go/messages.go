package socp

// Messages and posts: sent, and opened. What they are made of is in sealed.go.

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	pb "socp.example/interop/gen/socp/v1"
)

// --- Sending ---

// keyOf gives the key of a user that has the fingerprint, if it may be believed: the pinned one, the first one ever
// seen, or one that a whole chain of statements leads to from the pinned one.
func (c *Client) keyOf(ctx context.Context, who Who, fingerprint []byte) (key *Key, err error) {
	var pin *Key
	var entry *pb.DirectoryEntry
	c.locked(func() { pin, entry = c.pins[who], c.view[who] })
	if pin != nil && bytes.Equal(pin.Fingerprint[:], fingerprint) {
		return pin, nil
	}
	if pin == nil && entry.GetKeyStatement() != nil && len(entry.KeyStatementSha256) == 32 {
		key, err = readKey(entry.KeyStatement, who, entry.KeyStatementSha256, nil)
	} else {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var answer *pb.GetUserResponse
		answer, err = Call(ctx, c, c.Directory.GetUser, &pb.GetUserRequest{User: who.Name + "@" + who.Home})
		if err == nil && (!strings.HasPrefix(answer.User, who.Name+"@") || answer.ServerId != who.Home) {
			err = errors.New("the answer is about another user")
		}
		if err == nil {
			key, err = readChain(answer.KeyStatements, who, pin)
		}
	}
	if err != nil {
		return nil, err
	}
	c.locked(func() {
		if now := c.pins[who]; now != pin {
			key = now // pinned meanwhile
		}
		c.pins[who] = key
	})
	if !bytes.Equal(key.Fingerprint[:], fingerprint) {
		return nil, fmt.Errorf("KEY CHANGED: another key of %s is believed", who.Name)
	}
	return key, nil
}

// Content is what a message says: a text, with a file that it brings, or a receipt and no text.
type Content struct {
	Text          string
	File          *pb.FileManifest
	Receipt       *pb.Receipt
	WantsReceipts bool
}

// Seal makes a message to the user who has the key. What is sent again after a break is this very message.
func (c *Client) Seal(to Who, public *rsa.PublicKey, content Content) *pb.SealedMessage {
	now, key := time.Now(), random(32)
	header := encode(&pb.MessageHeader{Suite: 1, MessageId: newID(now), Sender: c.Name, SenderHomeId: c.ServerID,
		SenderKeySha256: c.fingerprint, Recipient: to.Name, RecipientHomeId: to.Home, RecipientKeySha256: fingerprintOf(public),
		TimeUnixMs: now.UnixMilli(), WantsReceipts: content.WantsReceipts})
	nonce, ciphertext, commitment := encrypt(key, header, content.Text)
	said := &pb.MessageStatement{Header: header, Nonce: nonce, Ciphertext: ciphertext, KeyCommitment: commitment}
	if content.File != nil {
		said.FileNonce, said.FileCiphertext = sealPart(key, header, "socp.v1.FileManifest", content.File)
	}
	if content.Receipt != nil {
		said.ReceiptNonce, said.ReceiptCiphertext = sealPart(key, header, "socp.v1.Receipt", content.Receipt)
	}
	statement := encode(said)
	return &pb.SealedMessage{Statement: statement, Signature: Sign(c.Key, "socp.v1.MessageStatement", statement), WrappedKey: wrap(public, key)}
}

// who finds a user who is online, or was since the program began, by `name@server-name`.
func (c *Client) who(user string) (who Who, err error) {
	ok := false
	c.locked(func() { who, ok = c.labels[user] })
	if !ok {
		err = fmt.Errorf("%s was never seen online", user)
	}
	return who, err
}

// Tell sends a text to a user who is or was online, `name@server-name`, and tries for as long as the context lasts. What is
// returned without an error is signed: HANDED_OVER and STORED by the recipient's home, QUEUED by the own one, which brings it
// there later; Events.Settled then tells what became of it.
func (c *Client) Tell(ctx context.Context, user, text string) (pb.OutcomeKind, error) {
	return c.tell(ctx, user, Content{Text: text, WantsReceipts: c.Receipts != pb.ReceiptKind_RECEIPT_KIND_UNSPECIFIED})
}

func (c *Client) tell(ctx context.Context, user string, content Content) (pb.OutcomeKind, error) {
	for again := true; ; again = false {
		to, err := c.who(user)
		if err != nil {
			return 0, err
		}
		var key *Key
		if e := c.Find(user); e != nil {
			fingerprint, _ := hex.DecodeString(e.KeyFingerprint)
			if key, err = c.keyOf(ctx, to, fingerprint); err != nil {
				return 0, err
			}
		} else { // offline: the pinned key; if that is not the one in force any more, the home says so
			c.locked(func() { key = c.pins[to] })
			if key == nil {
				return 0, fmt.Errorf("the key of %s is not known", user)
			}
		}
		kind, err := c.Send(ctx, to.Home, c.Seal(to, key.Public, content))
		if Reason(err) != "RECIPIENT_KEY_CHANGED" || !again || !pause(ctx, 3) {
			return kind, err
		} // else the watch brings the new key, and the text is sealed anew
	}
}

// Send sends a sealed message, and believes the outcome only if the home that may say so has signed it.
func (c *Client) Send(ctx context.Context, home string, sealed *pb.SealedMessage) (pb.OutcomeKind, error) {
	if h := headerOf(sealed); h.WantsReceipts {
		c.receipts.ask(h.MessageId, Who{h.Recipient, h.RecipientHomeId})
	}
	answer, err := Call(ctx, c, c.Messages.SendMessage, &pb.SendMessageRequest{Message: sealed})
	if err != nil {
		return 0, err
	}
	hash := sha256.Sum256(sealed.Statement)
	outcome, err := checkOutcome(answer.Outcome, home, c.ServerID, hash)
	switch kind := outcome.GetKind(); kind {
	case pb.OutcomeKind_OUTCOME_KIND_QUEUED:
		c.locked(func() { c.queued[headerOf(sealed).MessageId] = hash })
		return kind, nil
	case pb.OutcomeKind_OUTCOME_KIND_HANDED_OVER, pb.OutcomeKind_OUTCOME_KIND_STORED:
		return kind, nil
	}
	return 0, errors.Join(errors.New("what became of the message is not known"), err)
}

func headerOf(sealed *pb.SealedMessage) *pb.MessageHeader {
	var s pb.MessageStatement
	var h pb.MessageHeader
	if err := errors.Join(proto.Unmarshal(sealed.Statement, &s), proto.Unmarshal(s.Header, &h)); err != nil {
		panic(err) // it was made here
	}
	return &h
}

// All posts a text to everybody who is online, and tells to how many it was handed and which homes did not say so.
func (c *Client) All(ctx context.Context, text string) (recipients uint32, silent []string, err error) {
	c.posting.Lock()
	defer c.posting.Unlock()
	var members map[Who]*pb.DirectoryEntry
	c.locked(func() { members = maps.Clone(c.view) })
	delete(members, Who{c.Name, c.ServerID})
	own := &c.own
	anew := own.key == nil
	for who, e := range members {
		hash, given := own.given[who]
		anew = anew || given && !bytes.Equal(hash, e.KeyStatementSha256) // who has the old key is not to read on
	}
	if anew {
		*own = channelKey{id: random(16), key: random(32), given: map[Who][]byte{}, has: map[Who]*pb.DirectoryEntry{}}
	}

	wrapped, homes := map[Who]*pb.DirectoryEntry{}, map[string]uint32{} // homes: how many members
	var wraps []*pb.ChannelKeyWrap
	for who, e := range members {
		homes[who.Home]++
		if own.has[who] == e || len(wraps) == maxWraps { // "the rest get theirs with the next post"
			continue
		}
		fingerprint, _ := hex.DecodeString(e.KeyFingerprint)
		key, err := c.keyOf(ctx, who, fingerprint)
		if err != nil {
			c.Events.Note(fmt.Sprintf("%s cannot read the post: %v", e.User, err))
			continue
		}
		wrapped[who], own.given[who] = e, e.KeyStatementSha256
		wraps = append(wraps, &pb.ChannelKeyWrap{Recipient: who.Name, RecipientHomeId: who.Home,
			RecipientKeySha256: fingerprint, WrappedKey: wrap(key.Public, own.key)})
	}
	now, salt := time.Now(), random(32)
	id := newID(now)
	header := encode(&pb.PostHeader{Suite: 1, MessageId: id, Sender: c.Name, SenderHomeId: c.ServerID, SenderKeySha256: c.fingerprint,
		Channel: "public", KeyId: own.id, Salt: salt, Counter: own.counter, TimeUnixMs: now.UnixMilli()})
	own.counter++
	nonce, ciphertext, commitment := encrypt(postKey(own.key, salt, id), header, text)
	statement := encode(&pb.PostStatement{Header: header, Nonce: nonce, Ciphertext: ciphertext, KeyCommitment: commitment})
	post := &pb.SealedPost{Statement: statement, Signature: Sign(c.Key, "socp.v1.PostStatement", statement)}
	answer, err := Call(ctx, c, c.Messages.PostToChannel, &pb.PostToChannelRequest{Post: post, Wraps: wraps})
	if err != nil {
		return 0, nil, err
	}

	for _, signed := range answer.Outcomes {
		home := serverID(signed.HomeKey)
		outcome, err := checkOutcome(signed, home, home, sha256.Sum256(statement))
		if err != nil || homes[home] == 0 || outcome.Kind != pb.OutcomeKind_OUTCOME_KIND_HANDED_OVER {
			continue
		}
		// A member who is about to attach again is in the view, gets no post, and then has the same entry still. So a wrap
		// is sent again unless all members of the home were reached.
		all := outcome.Recipients >= homes[home]
		delete(homes, home) // it counts once
		recipients += outcome.Recipients
		for who, e := range wrapped {
			if who.Home == home && all {
				own.has[who] = e
			}
		}
	}
	return recipients, slices.Collect(maps.Keys(homes)), nil
}

// --- Opening ---

// isNew tells whether a text was not shown before. It is marked as shown only when it has opened: a forged one "must
// not make the true one look like a repeat". A program that runs for weeks forgets those that are 8 days old.
func (c *Client) isNew(text *Text, mark bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := shown{text.From, text.ID}
	isNew := !c.shown[id]
	if mark {
		c.shown[id] = true
	}
	return isNew
}

// checkSender checks a signature by the key that the directory and the pins give, "never from the message".
func (c *Client) checkSender(ctx context.Context, from Who, fingerprint []byte, label string, statement, signature []byte) error {
	key, err := c.keyOf(ctx, from, fingerprint)
	if err != nil {
		return err
	}
	return verify(key.Public, label, statement, signature)
}

// openMessage opens a message in the order of the protocol. It gives nil without an error for a repeat.
func (c *Client) openMessage(ctx context.Context, m *pb.SealedMessage) (*Text, error) {
	var s pb.MessageStatement
	var h pb.MessageHeader
	if len(m.GetStatement()) > maxStatement || len(m.GetSignature()) != 512 || len(m.GetWrappedKey()) != 512 ||
		proto.Unmarshal(m.Statement, &s) != nil || proto.Unmarshal(s.Header, &h) != nil || len(s.Nonce) != 12 || len(s.KeyCommitment) != 32 ||
		h.Suite != 1 || !uuidForm.MatchString(h.MessageId) || !nameForm.MatchString(h.Sender) || !idForm.MatchString(h.SenderHomeId) ||
		len(h.SenderKeySha256) != 32 || !nameForm.MatchString(h.Recipient) || !idForm.MatchString(h.RecipientHomeId) || len(h.RecipientKeySha256) != 32 {
		return nil, errors.New("it has not the form of a message")
	}
	text := &Text{From: Who{h.Sender, h.SenderHomeId}, ID: h.MessageId, TimeMS: h.TimeUnixMs}
	if !c.isNew(text, false) {
		return nil, nil
	}
	if h.Recipient != c.Name || h.RecipientHomeId != c.ServerID || !bytes.Equal(h.RecipientKeySha256, c.fingerprint) {
		return nil, errors.New("it is for somebody else")
	}
	if err := c.checkSender(ctx, text.From, h.SenderKeySha256, "socp.v1.MessageStatement", m.Statement, m.Signature); err != nil {
		return nil, err
	}
	key, err := unwrap(c.Key, m.WrappedKey)
	if err != nil {
		return nil, err
	}
	if text.Text, err = decrypt(key, s.Header, s.Nonce, s.Ciphertext, s.KeyCommitment); err != nil {
		return nil, err
	}
	if text.File, err = openManifest(key, &s); err != nil {
		return nil, err
	}
	if text.Receipt, err = openReceipt(key, &s); err != nil {
		return nil, err
	}
	if text.Receipt != nil {
		text.Answered = c.receipts.answered(text.From, text.Receipt)
	} else {
		text.wantsReceipt = h.WantsReceipts
	}
	c.isNew(text, true)
	return text, nil
}

// openPost opens a post likewise. Its channel key is one kept from an earlier post, or wrapped beside this one, or asked for:
// the program did not run when it came.
func (c *Client) openPost(ctx context.Context, p *pb.SealedPost, wrapped []byte) (*Text, error) {
	var s pb.PostStatement
	var h pb.PostHeader
	if len(p.GetStatement()) > maxStatement || len(p.GetSignature()) != 512 || len(wrapped) != 0 && len(wrapped) != 512 ||
		proto.Unmarshal(p.Statement, &s) != nil || proto.Unmarshal(s.Header, &h) != nil || len(s.Nonce) != 12 || len(s.KeyCommitment) != 32 ||
		h.Suite != 1 || !uuidForm.MatchString(h.MessageId) || !nameForm.MatchString(h.Sender) || !idForm.MatchString(h.SenderHomeId) ||
		len(h.SenderKeySha256) != 32 || h.Channel != "public" || len(h.KeyId) != 16 || len(h.Salt) != 32 {
		return nil, errors.New("it has not the form of a post")
	}
	text := &Text{From: Who{h.Sender, h.SenderHomeId}, ID: h.MessageId, ToAll: true, TimeMS: h.TimeUnixMs}
	if !c.isNew(text, false) {
		return nil, nil
	}
	if err := c.checkSender(ctx, text.From, h.SenderKeySha256, "socp.v1.PostStatement", p.Statement, p.Signature); err != nil {
		return nil, err
	}
	keyID := slices.Concat(h.SenderKeySha256, h.KeyId)
	is := func(k keptKey) bool { return bytes.Equal(k.id, keyID) }
	var kept []keptKey
	c.locked(func() { kept = slices.Clone(c.kept[text.From]) })
	err := errors.New("its channel key is not here")
	if at := slices.IndexFunc(kept, is); at >= 0 {
		text.Text, err = decrypt(postKey(kept[at].key, h.Salt, h.MessageId), s.Header, s.Nonce, s.Ciphertext, s.KeyCommitment)
	}
	if err != nil && len(wrapped) == 0 && c.Messages != nil {
		ask := &pb.GetChannelKeyRequest{Sender: h.Sender, SenderHomeId: h.SenderHomeId, KeyId: h.KeyId}
		if answer, failed := Call(ctx, c, c.Messages.GetChannelKey, ask); failed == nil {
			wrapped = answer.WrappedChannelKey
		}
	}
	if err != nil && len(wrapped) > 0 {
		var key []byte
		if key, err = unwrap(c.Key, wrapped); err == nil {
			text.Text, err = decrypt(postKey(key, h.Salt, h.MessageId), s.Header, s.Nonce, s.Ciphertext, s.KeyCommitment)
		}
		kept = append(slices.DeleteFunc(kept, is), keptKey{keyID, key})
	}
	if err != nil {
		return nil, err
	}
	c.locked(func() { c.kept[text.From] = kept[max(0, len(kept)-keptKeys):] }) // only a key that opened a post
	c.isNew(text, true)
	return text, nil
}
