package socp

// Files: encrypted in chunks, sent and received in pieces. However large a file is, a few chunks of it are in memory.

import (
	"bytes"
	"cmp"
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "socp.example/interop/gen/socp/v1"
)

const (
	chunkBytes   = 65536
	tagBytes     = 16
	sealedChunk  = chunkBytes + tagBytes
	chunksAtOnce = 4 // in one message of an upload: 1 MiB is its limit
	maxFileName  = 200
	patience     = 60 * time.Second // a transfer that got nowhere for so long is given up
)

var (
	fileIDForm = regexp.MustCompile(`^[0-9a-f]{32}$`)
	// Control characters, and marks that change the direction of a text.
	hostile = regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]`)
)

// --- The bytes ---

// openManifest gives nil without an error for a message that brings no file.
func openManifest(key []byte, s *pb.MessageStatement) (*pb.FileManifest, error) {
	if len(s.FileNonce) == 0 && len(s.FileCiphertext) == 0 {
		return nil, nil
	}
	if len(s.FileNonce) != 12 {
		return nil, errors.New("the nonce of a manifest has another size")
	}
	aead, _ := gcm(key)
	plain, err := aead.Open(nil, s.FileNonce, s.FileCiphertext, labelled("socp.v1.FileManifest", s.Header))
	if err != nil {
		return nil, err
	}
	var m pb.FileManifest
	if proto.Unmarshal(plain, &m) != nil || !fileIDForm.MatchString(m.FileId) || !idForm.MatchString(m.HomeId) || len(m.Name) > 1024 ||
		m.ChunkBytes != chunkBytes || m.Bytes > chunkBytes*(1<<32-1) || len(m.Key) != 32 || len(m.CiphertextSha256) != 32 {
		return nil, errors.New("it has not the form of a manifest")
	}
	return &m, nil
}

// chunks of one file: which one it is, and whether it is the last, stands in the nonce.
type chunks struct {
	aead         cipher.AEAD
	bytes, count uint64
}

func newChunks(key []byte, size uint64) *chunks {
	aead, _ := gcm(key)
	return &chunks{aead, size, max(1, (size+chunkBytes-1)/chunkBytes)} // an empty file is one empty chunk
}

func (c *chunks) sealedBytes() uint64 { return c.bytes + c.count*tagBytes }

// size is that of a chunk before encryption.
func (c *chunks) size(index uint64) int { return int(min(chunkBytes, c.bytes-index*chunkBytes)) }

func (c *chunks) nonce(index uint64) []byte {
	nonce := make([]byte, 12)
	binary.BigEndian.PutUint32(nonce[7:], uint32(index))
	if index+1 == c.count {
		nonce[11] = 1
	}
	return nonce
}

func (c *chunks) seal(index uint64, plain []byte) []byte {
	return c.aead.Seal(nil, c.nonce(index), plain, labelled("socp.v1.FileChunk"))
}

func (c *chunks) open(index uint64, sealed []byte) ([]byte, error) {
	return c.aead.Open(nil, c.nonce(index), sealed, labelled("socp.v1.FileChunk"))
}

// receiver opens what comes of a file, in parts of any size.
type receiver struct {
	manifest *pb.FileManifest
	chunks   *chunks
	to       io.Writer
	index    uint64 // of the chunk that is next
	chunk    []byte // what is here of it
	hash     hash.Hash
}

func newReceiver(m *pb.FileManifest, to io.Writer) *receiver {
	return &receiver{manifest: m, chunks: newChunks(m.Key, m.Bytes), to: to, hash: sha256.New()}
}

func (r *receiver) whole() bool { return r.index == r.chunks.count }

// begin tells where to go on after a break: with the first chunk that was not opened.
func (r *receiver) begin() uint64 {
	r.chunk = r.chunk[:0]
	return min(r.index*sealedChunk, r.chunks.sealedBytes())
}

func (r *receiver) take(part []byte) error {
	for len(part) > 0 {
		if r.whole() {
			return errors.New("the file is longer than it should be")
		}
		size := r.chunks.size(r.index) + tagBytes
		n := min(size-len(r.chunk), len(part))
		r.chunk, part = append(r.chunk, part[:n]...), part[n:]
		if len(r.chunk) < size {
			continue
		}
		r.hash.Write(r.chunk)
		plain, err := r.chunks.open(r.index, r.chunk)
		if err == nil {
			_, err = r.to.Write(plain)
		}
		if err != nil {
			return err
		}
		r.chunk = r.chunk[:0]
		r.index++
	}
	return nil
}

func (r *receiver) finish() error {
	switch {
	case !r.whole() || len(r.chunk) > 0:
		return errors.New("the file is shorter than it should be")
	case !bytes.Equal(r.hash.Sum(nil), r.manifest.CiphertextSha256):
		return errors.New("the file has another hash")
	}
	return nil
}

// source is a file that is sent, under a key of its own. It is encrypted as it is read, and again where a part of it is
// sent again: "never encrypt a chunk twice with other content under one key".
type source struct {
	from    io.ReaderAt
	name    string
	id      string
	key     []byte
	chunks  *chunks
	tags    [][]byte // of all chunks so far
	hash    hash.Hash
	changed error
}

func newSource(from io.ReaderAt, name string, size uint64) *source {
	key := random(32)
	return &source{from: from, name: name, id: hex.EncodeToString(random(16)), key: key, chunks: newChunks(key, size),
		hash: sha256.New(), changed: fmt.Errorf("`%s` changed while it was sent", name)}
}

func (s *source) seal(index uint64) ([]byte, error) {
	plain := make([]byte, s.chunks.size(index))
	if n, err := s.from.ReadAt(plain, int64(index*chunkBytes)); n < len(plain) {
		return nil, cmp.Or(s.changed, err)
	}
	sealed := s.chunks.seal(index, plain)
	tag := sealed[len(plain):]
	if index < uint64(len(s.tags)) {
		if !bytes.Equal(tag, s.tags[index]) {
			return nil, s.changed
		}
	} else {
		s.tags = append(s.tags, bytes.Clone(tag)) // a part of the chunk would keep all of it
		s.hash.Write(sealed)
	}
	return sealed, nil
}

// parts gives what is uploaded, from an offset to the end.
func (s *source) parts(offset uint64, give func([]byte) error) error {
	skip := offset % sealedChunk
	for index := offset / sealedChunk; index < s.chunks.count; {
		if index > uint64(len(s.tags)) {
			return errors.New("the server has more than was sent")
		}
		var part []byte
		for end := min(index+chunksAtOnce, s.chunks.count); index < end; index++ {
			sealed, err := s.seal(index)
			if err != nil {
				return err
			}
			part = append(part, sealed...)
		}
		if err := give(part[skip:]); err != nil {
			return err
		}
		skip = 0
	}
	return nil
}

func (s *source) manifest(home string) *pb.FileManifest {
	return &pb.FileManifest{FileId: s.id, HomeId: home, Name: s.name, Bytes: s.chunks.bytes, ChunkBytes: chunkBytes, Key: s.key,
		CiphertextSha256: s.hash.Sum(nil)}
}

// --- Names ---

// SafeName makes a plain file name out of what somebody else calls a file: it leads nowhere, hides nothing and steers no
// terminal.
func SafeName(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.TrimRight(strings.TrimSpace(hostile.ReplaceAllString(name, "")), ". ")
	if strings.IndexAny(name, ".-~") == 0 {
		name = "_" + name
	}
	if len(name) > maxFileName {
		extension := filepath.Ext(name)
		if len(extension) > 16 {
			extension = ""
		}
		stem := name[:maxFileName-len(extension)]
		for !utf8.ValidString(stem) {
			stem = stem[:len(stem)-1]
		}
		name = stem + extension
	}
	return cmp.Or(name, "file")
}

// settle gives a whole file its name, never in place of another: a link fails where a rename would replace.
func settle(temporary, folder, name string) (string, error) {
	extension := filepath.Ext(name)
	stem := strings.TrimSuffix(name, extension)
	for n := range 10000 {
		if n > 0 {
			name = fmt.Sprintf("%s (%d)%s", stem, n, extension)
		}
		path := filepath.Join(folder, name)
		if err := os.Link(temporary, path); err == nil {
			return path, os.Remove(temporary)
		} else if !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return "", os.ErrExist
}

// --- Over the network ---

// persist tries until it succeeds, and gives up when `progress` has not changed for a while. Each attempt has a token.
func (c *Client) persist(ctx context.Context, progress func() uint64, attempt func(ctx context.Context) error) error {
	reached, until := progress(), time.Now().Add(patience)
	for n := 0; ; n++ {
		token := c.currentToken()
		once, cancel := context.WithCancel(bearer(ctx, token))
		err := attempt(once)
		cancel()
		if Reason(err) == "TOKEN_INVALID" {
			if failed := c.logIn(ctx, token); failed != nil {
				err = failed
			}
		}
		if now := progress(); now != reached {
			n, reached, until = 0, now, time.Now().Add(patience)
		}
		if err == nil || !passing(err) && Reason(err) != "REPLACED" || time.Now().After(until) || !pause(ctx, n) {
			return err
		}
	}
}

// errNotAll has no status, so that another attempt is made.
var errNotAll = errors.New("the server has not got all of the file")

// SendFile sends a file to a user, `name@server-name`. The file is at the own home, whole and on its disk, before the
// message that tells of it is sent.
func (c *Client) SendFile(ctx context.Context, user, path string) (pb.OutcomeKind, error) {
	to, err := c.who(user)
	if err != nil {
		return 0, err
	}
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	source := newSource(file, filepath.Base(path), uint64(info.Size()))
	size, stored := source.chunks.sealedBytes(), uint64(0)
	var local error // one of this side: the file changed, or cannot be read
	err = c.persist(ctx, func() uint64 { return stored }, func(ctx context.Context) error {
		room, err := c.Files.CreateFile(ctx, &pb.CreateFileRequest{FileId: source.id, Recipient: to.Name, RecipientHomeId: to.Home, Bytes: size})
		if err != nil {
			return err
		}
		stored = room.StoredBytes // all of it, perhaps, if only the answer was lost
		stream, err := c.Files.UploadFile(ctx)
		if err != nil {
			return err
		}
		begin := &pb.UploadBegin{FileId: source.id, Offset: stored}
		send := func(request *pb.UploadFileRequest) error {
			if err := stream.Send(request); !errors.Is(err, io.EOF) {
				return err
			}
			_, err := stream.CloseAndRecv() // what the server says of it
			return cmp.Or(err, errNotAll)
		}
		if err := send(&pb.UploadFileRequest{Kind: &pb.UploadFileRequest_Begin{Begin: begin}}); err != nil {
			return err
		}
		var sent error
		if err := source.parts(stored, func(part []byte) error {
			sent = send(&pb.UploadFileRequest{Kind: &pb.UploadFileRequest_Part{Part: part}})
			return sent
		}); err != nil {
			if sent == nil {
				local = err
				return nil
			}
			return sent
		}
		answer, err := stream.CloseAndRecv()
		if err != nil {
			return err
		}
		if stored = answer.StoredBytes; stored != size {
			return errNotAll
		}
		return nil
	})
	if err = cmp.Or(local, err); err != nil {
		return 0, err
	}
	manifest := source.manifest(c.ServerID)
	return c.tell(ctx, user, Content{Text: fmt.Sprintf("[file] %s, %d bytes", SafeName(manifest.Name), manifest.Bytes), File: manifest})
}

// ReceiveFile fetches a file of `limit` bytes at most into a folder: under a temporary name, until all of it is there,
// checked and on disk. It gives the path.
func (c *Client) ReceiveFile(ctx context.Context, m *pb.FileManifest, folder string, limit uint64) (path string, err error) {
	if m.Bytes > limit {
		return "", errors.New("the file is larger than wanted")
	}
	temporary := filepath.Join(folder, "."+m.FileId+".part")
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return "", err
	}
	defer os.Remove(temporary)
	defer file.Close()
	receiver := newReceiver(m, file)
	var damaged error
	err = c.persist(ctx, func() uint64 { return receiver.index }, func(ctx context.Context) error {
		if receiver.whole() {
			return nil
		}
		request := &pb.DownloadFileRequest{FileId: m.FileId, HomeId: m.HomeId, Offset: receiver.begin()}
		stream, err := c.Files.DownloadFile(ctx, request, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		for {
			answer, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if damaged = receiver.take(answer.Part); damaged != nil {
				return nil
			}
		}
	})
	if err = cmp.Or(damaged, err); err == nil {
		err = receiver.finish()
	}
	if err == nil {
		err = file.Sync()
	}
	if err != nil {
		return "", err
	}
	return settle(temporary, folder, SafeName(m.Name))
}
