/* SPDX-License-Identifier: BSD-3-Clause */

#include "config.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "export_entry.h"
#include "hostfile.h"
#include "json.h"
#include "text.h"

#define SUFFIX ".json"

static const struct hostfile_rules rules = {
  .what = "exports file",
  .forbidden = 022,
  .max = EXPORT_FILE_BYTES_MAX,
  .no_links = true,
};

/* --- the list --- */

void
export_list_free (struct export_list *list)
{
  if (!list)
    return;
  for (size_t i = 0; i < list->nr; i++)
    export_entry_free (&list->entries[i]);
  for (size_t i = 0; i < list->nr_files; i++)
    free (list->files[i]);
  free (list->entries);
  free (list->files);
  free (list);
}

/* Make room for MORE entries, and for one more file name: the list keeps the
 * name, and *RET is it.
 */
static int
extend (struct export_list *list, const char *file, size_t more,
        const char **ret, struct reason *why)
{
  struct export_entry *entries;
  char **files;

  if (list->nr + more > EXPORT_FILE_EXPORTS_MAX)
    return reason_set (why, EINVAL, REASON_QUOTED ": more than %d exports",
                       reason_quoted (file), EXPORT_FILE_EXPORTS_MAX);
  files = realloc (list->files, (list->nr_files + 1) * sizeof *files);
  if (!files)
    return reason_no_memory (why);
  list->files = files;
  if (text_copy (&files[list->nr_files], file, why) < 0)
    return -ENOMEM;
  *ret = files[list->nr_files++];
  entries = realloc (list->entries, (list->nr + more) * sizeof *entries);
  if (!entries && more > 0)
    return reason_no_memory (why);
  if (entries)
    list->entries = entries;
  return 0;
}

static int
by_name (const void *a, const void *b)
{
  const struct export_entry *x = a, *y = b;

  return strcmp (x->name, y->name);
}

static int
is_named (const void *name, const void *entry)
{
  return strcmp (name, ((const struct export_entry *)entry)->name);
}

struct export_entry *
export_list_find (const struct export_list *list, const char *name)
{
  return list->nr == 0 ? NULL
                       : bsearch (name, list->entries, list->nr,
                                  sizeof *list->entries, is_named);
}

/* Sort the entries of one image together. */
static int
by_image (const void *a, const void *b)
{
  const struct export_entry *x = *(const struct export_entry *const *)a,
                            *y = *(const struct export_entry *const *)b;
  const struct image_spec *i = &x->params.volume.spec,
                          *j = &y->params.volume.spec;
  int r = strcmp (i->image, j->image);

  if (r == 0)
    r = strcmp (i->pool, j->pool);
  if (r == 0)
    r = strcmp (i->namespace, j->namespace);
  if (r == 0)
    r = strcmp (i->snap, j->snap);
  return r;
}

static int
check_names (const struct export_list *list, struct reason *why)
{
  char name[REASON_NAME_MAX];

  for (size_t i = 1; i < list->nr; i++) {
    const struct export_entry *a = &list->entries[i - 1], *b = a + 1;

    if (strcmp (a->name, b->name) == 0)
      return reason_set (why, EINVAL,
                         "the export \"%s\" is in %.256s and in "
                         "%.256s",
                         reason_name (name, a->name), a->file, b->file);
  }
  return 0;
}

/* Refuse two exports of one image with different keys, or that both write:
 * each would answer writes that the other does not know of.
 */
static int
check_pair (const struct export_entry *a, const struct export_entry *b,
            struct reason *why)
{
  char first[REASON_NAME_MAX], second[REASON_NAME_MAX];
  char image[IMAGE_SPEC_TEXT_MAX];

  if (export_entry_same_keys (&a->params, &b->params) &&
      (a->params.readonly || b->params.readonly))
    return 0;
  return reason_set (
      why, EINVAL,
      "the exports \"%s\" (%.128s) and \"%s\" (%.128s) are both of the image "
      "%.256s%s",
      reason_name (first, a->name), a->file, reason_name (second, b->name),
      b->file, image_spec_text (&a->params.volume.spec, image),
      export_entry_same_keys (&a->params, &b->params)
          ? ": all but one of them must be \"read-only\""
          : ", with different keys");
}

static int
check_images (const struct export_list *list, struct reason *why)
{
  CLEANUP_FREE const struct export_entry **sorted =
      calloc (list->nr + 1, sizeof *sorted);
  const struct export_entry *writer;
  int r = 0;

  if (!sorted)
    return reason_no_memory (why);
  for (size_t i = 0; i < list->nr; i++)
    sorted[i] = &list->entries[i];
  qsort (sorted, list->nr, sizeof *sorted, by_image);
  for (size_t i = 0; r == 0 && i < list->nr; i++) {
    /* Compare with the first entry of its image, or with the entry that writes.
     */
    if (i == 0 || by_image (&sorted[i - 1], &sorted[i]) != 0)
      writer = sorted[i];
    else {
      r = check_pair (writer, sorted[i], why);
      if (!sorted[i]->params.readonly)
        writer = sorted[i];
    }
  }
  return r;
}

static int
finish (struct export_list *list, struct reason *why)
{
  int r;

  if (list->nr > 0)
    qsort (list->entries, list->nr, sizeof *list->entries, by_name);
  r = check_names (list, why);
  return r < 0 ? r : check_images (list, why);
}

/* --- one file --- */

static int
parse (struct export_list *list, const char *file, const char *text,
       size_t length, const struct export_params *defaults, json_t *users,
       struct reason *why)
{
  json_t *root CLEANUP_JSON = NULL, *exports, *value;
  const struct json_member top[] = {
    { "exports", JSON_OBJECT, true, &exports },
    { .name = NULL },
  };
  const char *name;
  int r = json_parse_object (text, length, &root, why);

  if (r < 0) {
    reason_prefix (why, "the exports file " REASON_QUOTED,
                   reason_quoted (file));
    return r == -EBADMSG ? -EINVAL : r;
  }
  r = json_members (root, file, top, why);
  if (r == 0)
    r = extend (list, file, json_object_size (exports), &file, why);
  if (r < 0)
    return r;
  json_object_foreach (exports, name, value)
  {
    struct export_entry *entry = &list->entries[list->nr];

    r = export_entry_parse (file, name, value, defaults, users, entry, why);
    if (r < 0)
      return r;
    list->nr++;
  }
  return 0;
}

/* *LEFT: how many bytes may still be read. */
static int
read_file (struct export_list *list, const char *file,
           const struct export_params *defaults, json_t *users, size_t *left,
           struct reason *why)
{
  CLEANUP_SECRET struct secret *text = NULL;
  int r = hostfile_read (file, &rules, &text, NULL, why);

  if (r == -ENOENT)
    return reason_set (why, ENOENT, "there is no exports file " REASON_QUOTED,
                       reason_quoted (file));
  if (r < 0)
    return r;
  if (text->length > *left)
    return reason_set (why, EINVAL,
                       REASON_QUOTED ": with the files before it, the exports "
                                     "are longer than %d bytes",
                       reason_quoted (file), EXPORT_FILE_BYTES_MAX);
  *left -= text->length;
  return parse (list, file, (const char *)text->bytes, text->length, defaults,
                users, why);
}

/* --- a directory --- */

static int
is_exports_file (const struct dirent *entry)
{
  const size_t n = strlen (entry->d_name), suffix = strlen (SUFFIX);

  return entry->d_name[0] != '.' && n > suffix &&
         strcmp (entry->d_name + n - suffix, SUFFIX) == 0;
}

/* A user who can put files here decides what is served.  0 or -errno. */
static int
check_directory (int fd, const char *path, struct reason *why)
{
  struct stat st;

  if (fstat (fd, &st) == -1)
    return reason_set (why, EINVAL, REASON_QUOTED ": %s", reason_quoted (path),
                       strerror (errno));
  if (st.st_uid != 0 && st.st_uid != geteuid ())
    return reason_set (why, EINVAL,
                       "the exports directory " REASON_QUOTED
                       " belongs to user %u: it must belong to root or to the "
                       "user who starts the server (%u)",
                       reason_quoted (path), (unsigned)st.st_uid,
                       (unsigned)geteuid ());
  if (st.st_mode & 022)
    return reason_set (why, EINVAL,
                       "the exports directory " REASON_QUOTED
                       " may be written by others (mode %04o): chmod go-w",
                       reason_quoted (path), (unsigned)st.st_mode & 07777);
  return 0;
}

static int
read_files (struct export_list *list, const char *path, struct dirent **names,
            int nr, const struct export_params *defaults, json_t *users,
            struct reason *why)
{
  size_t left = EXPORT_FILE_BYTES_MAX;
  int r = 0;

  if (nr > EXPORT_FILES_MAX)
    return reason_set (why, EINVAL,
                       "the exports directory " REASON_QUOTED
                       " holds more than %d files",
                       reason_quoted (path), EXPORT_FILES_MAX);
  for (int i = 0; r == 0 && i < nr; i++) {
    CLEANUP_FREE char *file = NULL;

    r = text_format (&file, why, "%s/%s", path, names[i]->d_name);
    if (r == 0)
      r = read_file (list, file, defaults, users, &left, why);
  }
  return r;
}

static int
read_directory (struct export_list *list, const char *path, int fd,
                const struct export_params *defaults, json_t *users,
                struct reason *why)
{
  struct dirent **names = NULL;
  int r = check_directory (fd, path, why), nr;

  if (r < 0)
    return r;
  nr = scandirat (fd, ".", &names, is_exports_file, alphasort);
  if (nr < 0)
    return reason_set (why, errno == ENOMEM ? ENOMEM : EINVAL,
                       REASON_QUOTED ": %s", reason_quoted (path),
                       strerror (errno));
  r = read_files (list, path, names, nr, defaults, users, why);
  for (int i = 0; i < nr; i++)
    free (names[i]);
  free (names);
  return r;
}

/* --- both --- */

static int
read_path (struct export_list *list, const char *path,
           const struct export_params *defaults, json_t *users,
           struct reason *why)
{
  const int fd = open (path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  size_t left = EXPORT_FILE_BYTES_MAX;
  int r;

  if (fd == -1)
    return read_file (list, path, defaults, users, &left, why);
  r = read_directory (list, path, fd, defaults, users, why);
  close (fd);
  return r;
}

/* If TEXT is set, parse TEXT as the content of PATH. */
static int
make_list (const char *path, const char *text, size_t length,
           const struct export_params *defaults, struct export_list **ret,
           struct reason *why)
{
  struct export_list *list = calloc (1, sizeof *list);
  json_t *users CLEANUP_JSON = json_object ();
  int r;

  if (!list || !users)
    r = reason_no_memory (why);
  else if (text)
    r = parse (list, path, text, length, defaults, users, why);
  else
    r = read_path (list, path, defaults, users, why);
  if (r == 0)
    r = finish (list, why);
  if (r == 0)
    *ret = list;
  else
    export_list_free (list);
  return r;
}

int
export_file_read (const char *path, const struct export_params *defaults,
                  struct export_list **ret, struct reason *why)
{
  return make_list (path, NULL, 0, defaults, ret, why);
}

int
export_file_parse (const char *file, const char *text, size_t length,
                   const struct export_params *defaults,
                   struct export_list **ret, struct reason *why)
{
  return make_list (file, text, length, defaults, ret, why);
}
